// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/netio/netns"
	"github.com/meltemi/meltemi/samples/bookshop"
)

const limit = 60 * time.Second

// configuration is the sample's with another gateway port.
func configuration(t *testing.T, port uint16) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := writeSample(bookshop.Configuration(), dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "gateway.yaml")
	text := strings.ReplaceAll(readFile(file), "number: 8080", fmt.Sprintf("number: %d", port))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// buffer may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// upConfig is a mesh on free ports with a state folder of its own.
func upConfig(t *testing.T, capture bool) (UpConfig, *buffer) {
	t.Helper()
	if capture {
		if err := canCapture(); err != nil {
			t.Skip("capture needs root on Linux: ", err)
		}
	}
	out := &buffer{}
	cfg := UpDefaults()
	cfg.Dir = filepath.Join(t.TempDir(), "state")
	cfg.XDS, cfg.Monitoring = freeporttest.Addr(t).Port(), freeporttest.Addr(t).Port()
	cfg.Paths = []string{configuration(t, freeporttest.Addr(t).Port())}
	cfg.NoCapture = !capture
	cfg.Out, cfg.Plain = out, true
	cfg.Traffic = 20
	t.Cleanup(func() { noTrace(t, cfg.Dir) })
	return cfg, out
}

// noTrace fails if anything of the mesh is left.
func noTrace(t *testing.T, dir string) {
	t.Helper()
	f := folder{dir}
	if names, _ := netns.List(f.space("")); len(names) > 0 {
		t.Errorf("namespaces are left: %v", names)
	}
	if _, err := os.Stat(f.made()); err == nil {
		t.Errorf("things are left: %s", readFile(f.made()))
	}
	for _, d := range []string{f.registrations(), f.runs(), f.taken(), filepath.Join(f.state(), "tokens"), filepath.Join(f.dir, "proxies")} {
		if left, _ := os.ReadDir(d); len(left) > 0 {
			t.Errorf("left in %s: %v", d, left)
		}
	}
	if _, err := os.Stat("/run/meltemi-" + f.id()); err == nil {
		t.Error("the runtime folder is left")
	}
	for _, p := range children() {
		t.Errorf("a process is left: %s", p)
	}
}

// children lists living processes that are played by this very binary.
func children() (found []string) {
	own, _ := os.Readlink("/proc/self/exe")
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		exe, err := os.Readlink(d + "/exe")
		if err != nil || exe != own || d == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		found = append(found, strings.ReplaceAll(readFile(d+"/cmdline"), "\x00", " "))
	}
	return found
}

// within waits until ok says so.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := poll(ctx, func() error {
		if ok() {
			return nil
		}
		return errors.New("not yet")
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// begin starts Up, waits until it is ready, and returns how to end it.
func begin(t *testing.T, cfg UpConfig, out *buffer) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Up(ctx, cfg) }()
	var once sync.Once
	var err error
	end = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { _ = end() })
	within(t, "ready", func() bool {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("ended: %v\n%s", err, out)
		default:
		}
		return strings.Contains(out.String(), "ready in")
	})
	return end
}

// fetch asks the mesh for a page.
func fetch(t *testing.T, cfg UpConfig, path string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d%s", firstPort(cfg.Paths), path))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// modes runs a test with and without capture.
func modes(t *testing.T, f func(t *testing.T, capture bool)) {
	t.Run("explicit", func(t *testing.T) { f(t, false) })
	t.Run("captured", func(t *testing.T) { f(t, true) })
}

func TestUpServesAndLeavesNoTrace(t *testing.T) {
	modes(t, func(t *testing.T, capture bool) {
		cfg, out := upConfig(t, capture)
		end := begin(t, cfg, out)
		within(t, "the page", func() bool { code, _ := fetch(t, cfg, "/productpage"); return code == 200 })
		code, page := fetch(t, cfg, "/productpage")
		if code != 200 || !strings.Contains(page, "Reviewer1") || strings.Contains(page, "Error fetching") {
			t.Errorf("%d %s", code, page)
		}
		m, err := Running(cfg.Dir)
		if err != nil || m.Capture != capture || m.PID != os.Getpid() {
			t.Errorf("%+v, %v", m, err)
		}
		second := cfg
		if err := Up(t.Context(), second); err == nil || !strings.Contains(err.Error(), "already runs") {
			t.Errorf("a second mesh on the same folder: %v", err)
		}
		if err := end(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if _, err := Running(cfg.Dir); !errors.Is(err, errNotRunning) {
			t.Errorf("still running: %v", err)
		}
	})
}

// Meshes on folders of their own do not notice one another, not even when they start together.
func TestMeshesSideBySide(t *testing.T) {
	modes(t, func(t *testing.T, capture bool) {
		const meshes = 3
		cfgs := make([]UpConfig, meshes)
		outs := make([]*buffer, meshes)
		for i := range cfgs {
			cfgs[i], outs[i] = upConfig(t, capture)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, meshes)
		for _, cfg := range cfgs {
			go func() { ended <- Up(ctx, cfg) }()
		}
		defer func() {
			cancel()
			for range cfgs {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}()
		for i, cfg := range cfgs {
			within(t, "ready", func() bool { return len(ended) > 0 || strings.Contains(outs[i].String(), "ready in") })
			if len(ended) > 0 {
				t.Fatalf("one has ended; mesh %d says:\n%s", i, outs[i])
			}
			within(t, "the page", func() bool { code, _ := fetch(t, cfg, "/productpage"); return code == 200 })
		}
	})
}

func TestForEnds(t *testing.T) {
	cfg, out := upConfig(t, false)
	cfg.For = time.Millisecond
	if err := Up(t.Context(), cfg); err != nil || !strings.Contains(out.String(), "ready in") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestTakenPortIsNamedWithItsOwner(t *testing.T) {
	cfg, _ := upConfig(t, false)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", cfg.XDS))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = Up(t.Context(), cfg)
	var inUse *netio.InUseError
	if !errors.As(err, &inUse) {
		t.Fatalf("got %v", err)
	}
	if runtime.GOOS == "linux" && !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("got %v", err)
	}
}

func TestShown(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	here, err := os.Getwd() // as the system spells it
	if err != nil {
		t.Fatal(err)
	}
	if got, want := shown(filepath.Join(here, "a", "b"), filepath.Dir(here)), filepath.Join("a", "b")+", "+filepath.Dir(here); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBrokenBeginnings(t *testing.T) {
	cfg, _ := upConfig(t, false)
	cfg.Paths = []string{filepath.Join(cfg.Dir, "nowhere")}
	if err := Up(t.Context(), cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing configuration: %v", err)
	}
	cfg, _ = upConfig(t, false)
	cfg.Program = "/bin/false"
	if err := Up(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "control plane: not ready") {
		t.Errorf("a control plane that ends at once: %v", err)
	}
}

// processOf finds a process of the mesh by its name in the journal.
func processOf(t *testing.T, cfg UpConfig, name string) made.Thing {
	t.Helper()
	j, err := made.Open(folder{cfg.Dir}.made())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range j.Things() {
		if x.Kind == made.Process && x.Name == name && x.PID != 0 {
			return x
		}
	}
	return made.Thing{}
}

func TestTheDeadAreStartedAgain(t *testing.T) {
	cfg, out := upConfig(t, false)
	begin(t, cfg, out)
	for _, name := range []string{"control plane", "proxy of reviews-v1", "details-v1"} {
		before := processOf(t, cfg, name)
		if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
			t.Fatal(name, err)
		}
		within(t, name, func() bool {
			now := processOf(t, cfg, name)
			return now.PID != before.PID && now.Alive()
		})
		if !strings.Contains(out.String(), name+": signal: killed; it is started again") {
			t.Errorf("nobody was told about %s: %s", name, out)
		}
	}
	within(t, "the page", func() bool { code, _ := fetch(t, cfg, "/productpage"); return code == 200 })
}

func TestCheckNoticesAKilledSidecar(t *testing.T) {
	cfg, out := upConfig(t, false)
	cfg.Check = true
	done := make(chan error, 1)
	go func() { done <- Up(t.Context(), cfg) }()
	within(t, "a sidecar", func() bool {
		return processOf(t, cfg, "proxy of details-v1").PID != 0 && strings.Contains(out.String(), "ready in")
	})
	_ = syscall.Kill(processOf(t, cfg, "proxy of details-v1").PID, syscall.SIGKILL)
	err := <-done
	// Carriers of bytes pass no check of security; what counts here is that the run is told and ends.
	if err == nil || !strings.Contains(out.String(), "FAIL plaintext-refused") || !strings.Contains(err.Error(), "check failed") {
		t.Errorf("%v\n%s", err, out)
	}
	if text := readFile(filepath.Join(cfg.Paths[0], "reviews.yaml")); !strings.Contains(text, "weight: 80") {
		t.Error("the check changed the original")
	}
}

// Nobody takes for checked what was not.
func TestCheckThatIsEndedEarlyFails(t *testing.T) {
	cfg, _ := upConfig(t, false)
	cfg.Check = true
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := Up(ctx, cfg); !errors.Is(err, ErrNotChecked) {
		t.Errorf("it ends with %v", err)
	}
}

// playUp is a mesh in a process of its own, for tests that kill it.
func playUp(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("up", flag.ContinueOnError)
	cfg := UpDefaults()
	fs.StringVar(&cfg.Dir, "dir", "", "")
	xds, monitoring := fs.Uint("xds", 0, ""), fs.Uint("monitoring", 0, "")
	fs.BoolVar(&cfg.NoCapture, "no-capture", false, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	cfg.XDS, cfg.Monitoring, cfg.Paths, cfg.Plain = uint16(*xds), uint16(*monitoring), fs.Args(), true
	return Up(ctx, cfg)
}

func TestTheNextStartCleansUpAfterACrash(t *testing.T) {
	modes(t, func(t *testing.T, capture bool) {
		cfg, out := upConfig(t, capture)
		args := []string{"up", "--dir", cfg.Dir, "--xds", fmt.Sprint(cfg.XDS), "--monitoring", fmt.Sprint(cfg.Monitoring)}
		if !capture {
			args = append(args, "--no-capture")
		}
		first := &buffer{}
		cmd := exec.Command(os.Args[0], append(args, cfg.Paths...)...)
		cmd.Stdout, cmd.Stderr = first, first
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, "ready", func() bool { return strings.Contains(first.String(), "ready in") })
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if len(children()) == 0 && runtime.GOOS == "linux" {
			t.Fatal("nothing survived the crash, so nothing is shown")
		}
		if _, err := Running(cfg.Dir); !errors.Is(err, errNotRunning) {
			t.Errorf("a dead mesh is said to run: %v", err)
		}
		end := begin(t, cfg, out)
		within(t, "the page", func() bool { code, _ := fetch(t, cfg, "/productpage"); return code == 200 })
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}
