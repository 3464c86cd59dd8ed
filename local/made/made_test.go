// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package made

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/netns"
	"github.com/meltemi/meltemi/redirect"
)

func journal(t *testing.T) *Journal {
	t.Helper()
	j, err := Open(filepath.Join(t.TempDir(), "made.json"))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// sleeper starts a process that does nothing, recorded as up would.
func sleeper(t *testing.T, j *Journal, script string) (Thing, <-chan error) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	th := Thing{Kind: Process, Name: "sleeper", Marker: fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()), Group: true}
	if err := j.Record(th); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), MarkerVariable+"="+th.Marker)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	th.PID, th.Born = cmd.Process.Pid, Born(cmd.Process.Pid)
	return th, done
}

func TestProcessIsEndedWithItsGroup(t *testing.T) {
	j := journal(t)
	th, done := sleeper(t, j, "sleep 1000 & wait")
	if err := j.Record(th); err != nil {
		t.Fatal(err)
	}
	if !th.Alive() {
		t.Fatal("not alive")
	}
	if err := j.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	deadline := time.After(10 * time.Second)
	for tick := time.Tick(time.Millisecond); groupLives(th.PID); {
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("part of its group is left")
		}
	}
	if _, err := os.Stat(j.path); !os.IsNotExist(err) {
		t.Error("an empty journal has a file")
	}
}

// groupLives reports whether any process but remains belongs to the group.
func groupLives(group int) bool {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		pid, _ := strconv.Atoi(filepath.Base(p))
		if g, err := syscall.Getpgid(pid); err == nil && g == group && Born(pid) != "" {
			return true
		}
	}
	return false
}

func TestStubbornProcessIsKilled(t *testing.T) {
	j := journal(t)
	th, done := sleeper(t, j, "trap '' TERM; while :; do sleep 0.05; done")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // no patience
	if err := j.UndoOne(ctx, th); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestProcessStartedButNotNotedIsFound(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("environments of other processes cannot be read here")
	}
	for range 20 { // that its environment cannot be read at every moment was missed once in a while
		startedButNotNoted(t)
	}
}

func startedButNotNoted(t *testing.T) {
	j := journal(t)
	th, done := sleeper(t, j, "exec sleep 1000")
	if j.Things()[0].PID != 0 {
		t.Fatal("noted")
	}
	again, err := Open(j.path) // the next program
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not found")
	}
	if th.Alive() {
		t.Error("alive")
	}
}

func TestReusedNumberIsLeftAlone(t *testing.T) {
	j := journal(t)
	th, _ := sleeper(t, j, "exec sleep 1000")
	other := th
	other.Born = "1"
	if err := j.UndoOne(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if !th.Alive() {
		t.Error("a process that is not ours was ended")
	}
	if Born(os.Getpid()) == "" || Born(1<<30) != "" {
		t.Error("Born")
	}
}

func TestFilesFoldersAndReboots(t *testing.T) {
	j := journal(t)
	dir := t.TempDir()
	folder, file := filepath.Join(dir, "a", "b"), filepath.Join(dir, "f")
	for _, th := range []Thing{{Kind: Folder, Name: filepath.Join(dir, "a")}, {Kind: File, Name: file}, {Kind: File, Name: filepath.Join(dir, "never made")}} {
		if err := j.Record(th); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.MkdirAll(folder, 0o755)
	_ = os.WriteFile(file, nil, 0o644)
	if err := j.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if runtime.GOOS != "linux" {
		return
	}
	th, _ := sleeper(t, j, "exec sleep 1000")
	th.Boot = "another boot"
	if err := j.UndoOne(t.Context(), th); err != nil || !th.Alive() {
		t.Errorf("what another boot made is gone by itself: %v", err)
	}
}

func TestJournalSurvives(t *testing.T) {
	j := journal(t)
	for _, name := range []string{"a", "b", "c"} {
		if err := j.Record(Thing{Kind: File, Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Forget(Thing{Kind: File, Name: "b"}); err != nil {
		t.Fatal(err)
	}
	again, err := Open(j.path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.Things(), []Thing{{Kind: File, Name: "a"}, {Kind: File, Name: "c"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if err := os.WriteFile(j.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(j.path); err == nil || !strings.Contains(err.Error(), "unreadable") {
		t.Errorf("got %v", err)
	}
}

func TestNamespacesAndLinks(t *testing.T) {
	if err := netns.Permitted(); err != nil {
		t.Skip("no network namespaces:", err)
	}
	j := journal(t)
	name := fmt.Sprintf("mltmmade-%d", os.Getpid())
	link := fmt.Sprintf("mm%d", os.Getpid())
	for _, th := range []Thing{{Kind: Namespace, Name: name}, {Kind: Link, Name: link}} {
		if err := j.Record(th); err != nil {
			t.Fatal(err)
		}
	}
	ns, err := netns.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Connect(netns.End{Name: link}, netns.End{Namespace: ns, Name: "eth0"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is there
		if err := j.Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if names, _ := netns.List(name); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if links, _ := (netns.Namespace{}).Links(link); len(links) != 0 {
		t.Errorf("left: %v", links)
	}
}

func TestSettingsAndTables(t *testing.T) {
	if err := netns.Permitted(); err != nil {
		t.Skip("no packet rules:", err)
	}
	j := journal(t)
	setting := filepath.Join(t.TempDir(), "forwarding")
	if err := os.WriteFile(setting, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, th := range []Thing{
		{Kind: Setting, Name: setting, Value: "0\n"},
		{Kind: Table, Name: fmt.Sprint("mltmmade", os.Getpid())},
		{Kind: Setting, Name: filepath.Join(t.TempDir(), "no", "such"), Value: "0"},
	} {
		if err := j.Record(th); err != nil {
			t.Fatal(err)
		}
	}
	rules := redirect.Share(fmt.Sprint("mltmmade", os.Getpid()), "none0", netip.MustParsePrefix("10.254.200.0/24"))
	if err := rules.Apply(netns.Namespace{}); err != nil {
		t.Fatal(err)
	}
	if err := j.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(setting); string(b) != "0\n" {
		t.Errorf("the setting is %q", b)
	}
}

func TestKillWaitsForNothingAndKeepsTheList(t *testing.T) {
	j := journal(t)
	th, done := sleeper(t, j, "trap '' TERM; sleep 1000 & wait; sleep 1000")
	if err := j.Record(Thing{Kind: File, Name: "stays"}); err != nil {
		t.Fatal(err)
	}
	j.Kill()
	<-done
	if th.Alive() || len(j.Things()) != 2 {
		t.Errorf("alive %v, listed %v", th.Alive(), j.Things())
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.json")
	if err := WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(dir, ".a.json-1"), filepath.Join(dir, ".a.json-2")
	for _, path := range []string{old, young} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * tempAge)
	for _, path := range []string{old, file} {
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the remains of a write are left")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("what is being written is gone")
	}
}

func TestAJournalsOwnRemainsGoAtOnce(t *testing.T) {
	j := journal(t)
	remains, other := filepath.Join(filepath.Dir(j.path), ".made.json-1"), filepath.Join(filepath.Dir(j.path), ".other.json-1")
	for _, path := range []string{remains, other} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(remains); err == nil {
		t.Error("it is left")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("another's is gone")
	}
}
