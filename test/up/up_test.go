// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/netns"
)

// programs is the folder of the programs under test.
var programs string

func TestMain(m *testing.M) {
	if os.Getenv(greets) != "" {
		greet()
	}
	if addr := os.Getenv(calls); addr != "" {
		call(addr)
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "meltemi-up-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // other users run them, too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if out, err := exec.Command("go", "build", "-o", dir+"/", "../../cmd/meltemi", "../../cmd/meltemi-proxy").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	programs = dir
	return m.Run()
}

// ways are the ways to run the mesh that this machine and user allow.
func ways(t *testing.T) map[string][]string {
	t.Helper()
	w := map[string][]string{"explicit": {"--no-capture"}}
	if netns.Permitted() == nil {
		w["captured"] = nil
	}
	return w
}

// A session is a running "meltemi up".
type session struct {
	t     *testing.T
	cmd   *exec.Cmd
	dir   string // working folder
	ready chan struct{}
	done  chan struct{}
	err   error

	mu  sync.Mutex
	out bytes.Buffer
}

// start runs "meltemi up --plain" with flags in a folder of its own; user 0 is ours.
func start(t *testing.T, user uint32, flags ...string) *session {
	t.Helper()
	s := &session{t: t, dir: t.TempDir(), ready: make(chan struct{}), done: make(chan struct{})}
	s.cmd = exec.Command(filepath.Join(programs, "meltemi"), append([]string{"up", "--plain"}, flags...)...)
	s.cmd.Dir = s.dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if user != 0 {
		for d := s.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(s.dir, int(user), int(user)); err != nil {
			t.Fatal(err)
		}
		s.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
		s.cmd.Env = append(os.Environ(), "HOME="+s.dir)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.follow(stdout)
	t.Cleanup(func() {
		s.interrupt()
		select {
		case <-s.done:
		case <-time.After(20 * time.Second):
			_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
			t.Error("up did not end when it was asked to")
		}
		if t.Failed() {
			t.Logf("up printed:\n%s", s.text())
		}
	})
	return s
}

func (s *session) follow(r io.Reader) {
	lines := bufio.NewScanner(r)
	said := false
	for lines.Scan() {
		s.mu.Lock()
		s.out.WriteString(lines.Text() + "\n")
		s.mu.Unlock()
		if !said && strings.Contains(lines.Text(), "ready in") {
			said = true
			close(s.ready)
		}
	}
	s.err = s.cmd.Wait()
	close(s.done)
}

func (s *session) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

func (s *session) interrupt() { _ = s.cmd.Process.Signal(os.Interrupt) }

func (s *session) awaitReady() {
	s.t.Helper()
	select {
	case <-s.ready:
	case <-s.done:
		s.t.Fatalf("up ended before it was ready: %v\n%s", s.err, s.text())
	case <-time.After(60 * time.Second):
		s.t.Fatalf("up is not ready after a minute:\n%s", s.text())
	}
}

// awaitEnd returns the exit code.
func (s *session) awaitEnd() int {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(90 * time.Second):
		s.t.Fatalf("up does not end:\n%s", s.text())
	}
	var exit *exec.ExitError
	if errors.As(s.err, &exit) {
		return exit.ExitCode()
	}
	if s.err != nil {
		s.t.Fatal(s.err)
	}
	return 0
}

// processes lists what runs with a command line that matches, below this session's folder.
func (s *session) processes(pattern string) map[int]string {
	re := regexp.MustCompile(pattern)
	found := make(map[int]string)
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range lines {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has just ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		text := strings.ReplaceAll(string(b), "\x00", " ")
		cwd, _ := os.Readlink(filepath.Join(filepath.Dir(f), "cwd"))
		if pid != s.cmd.Process.Pid && re.MatchString(text) && (strings.Contains(text, s.dir) || strings.HasPrefix(cwd, s.dir)) {
			found[pid] = text
		}
	}
	return found
}

// leavesNothing checks that the session took everything with it.
func (s *session) leavesNothing(before []string) {
	s.t.Helper()
	for pid, text := range s.processes(".") {
		s.t.Errorf("process %d is left: %s", pid, text)
	}
	for _, l := range links() {
		if !slices.Contains(before, l) {
			s.t.Errorf("%s is left", l)
		}
	}
}

// links lists links and namespaces that look like ours.
func links() []string {
	names, _ := filepath.Glob("/sys/class/net/meltemi*")
	spaces, _ := filepath.Glob("/var/run/netns/meltemi*")
	return append(names, spaces...)
}

func TestCheckPasses(t *testing.T) {
	for name, flags := range ways(t) {
		t.Run(name, func(t *testing.T) {
			before := links()
			s := start(t, 0, append(flags, "--check")...)
			if code := s.awaitEnd(); code != 0 || strings.Contains(s.text(), "FAIL") {
				t.Fatalf("exit code %d", code)
			}
			t.Log(s.text())
			s.leavesNothing(before)
		})
	}
}

func TestCheckPassesForAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("we are an ordinary user: TestCheckPasses has shown it")
	}
	const nobody = 65534
	s := start(t, nobody, "--check")
	if code := s.awaitEnd(); code != 0 || strings.Contains(s.text(), "FAIL") {
		t.Fatalf("exit code %d", code)
	}
}

// What is wrong makes the check fail, and the check that saw it is named.
func TestCheckFails(t *testing.T) {
	for _, c := range []struct {
		name, names string
		spoil       func(t *testing.T, s *session)
	}{
		{"a killed sidecar", "member", func(t *testing.T, s *session) {
			found := s.processes("role sidecar.*--name ratings-v1|--name ratings-v1.*role sidecar")
			if len(found) != 1 {
				t.Fatalf("sidecars of ratings: %v", found)
			}
			for pid := range found {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"a sidecar killed during the check", "members-to-the-end", func(t *testing.T, s *session) {
			poll(t, "the first checks", func() error {
				if !strings.Contains(s.text(), "ok   members") {
					return errors.New("not yet")
				}
				return nil
			})
			found := s.processes("role sidecar.*--name details-v1")
			if len(found) != 1 {
				t.Fatalf("sidecars of details: %v", found)
			}
			for pid := range found {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"a refused object", "configuration", func(t *testing.T, s *session) {
			if err := os.WriteFile(filepath.Join(filepath.Dir(s.checked("reviews.yaml")), "more.yaml"), []byte("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: more}\nspec: {hosts: [more], htpp: []}\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"a removed policy", "authorization|plaintext|mutual", func(t *testing.T, s *session) {
			if err := os.Remove(s.checked("security.yaml")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a wrong weight", "weights", func(t *testing.T, s *session) {
			b, err := os.ReadFile(s.checked("reviews.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			b = bytes.Replace(bytes.Replace(b, []byte("weight: 80"), []byte("weight: 50"), 1), []byte("weight: 20"), []byte("weight: 50"), 1)
			if err := os.WriteFile(s.checked("reviews.yaml"), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, 0, "--no-capture", "--check")
			s.awaitReady()
			c.spoil(t, s)
			if code := s.awaitEnd(); code != 1 {
				t.Fatalf("exit code %d, want 1", code)
			}
			if !regexp.MustCompile(`(?m)^FAIL +\S*(` + c.names + `)`).MatchString(s.text()) {
				t.Errorf("no failed check names it (%s)", c.names)
			}
		})
	}
}

// checked is a file of the configuration that --check works on.
func (s *session) checked(name string) string {
	s.t.Helper()
	var found string
	_ = filepath.WalkDir(filepath.Join(s.dir, ".meltemi", "check"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == name {
			found = path
		}
		return nil
	})
	if found == "" {
		s.t.Fatalf("the configuration that is checked has no %s", name)
	}
	return found
}

const page = "http://127.0.0.1:8080/productpage"

func get(url string) (int, string, error) {
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// poll asks until ok holds.
func poll(t *testing.T, what string, ok func() error) {
	t.Helper()
	var last error
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		if last = ok(); last == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, last)
}

// onlyV3 sends everybody to reviews v3.
const onlyV3 = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews, subset: v3}}]
`

// The control plane is killed: the page goes on, no proxy restarts, and when the
// control plane is back, changes flow again.
func TestControlPlaneKilled(t *testing.T) {
	for name, flags := range ways(t) {
		t.Run(name, func(t *testing.T) {
			before := links()
			s := start(t, 0, append(flags, "--traffic", "0")...)
			s.awaitReady()
			poll(t, "the page", func() error {
				status, _, err := get(page)
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("status %d", status)
				}
				return err
			})
			proxies := s.processes("--role (sidecar|router)")
			if len(proxies) != 7 {
				t.Fatalf("%d proxies: %v", len(proxies), proxies)
			}
			control := s.processes(" control --state ")
			if len(control) != 1 {
				t.Fatalf("control planes: %v", control)
			}
			for pid := range control {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 200 {
				if status, _, err := get(page); err != nil || status != http.StatusOK {
					t.Fatalf("request %d after the kill: %d, %v", i, status, err)
				}
			}
			poll(t, "another control plane", func() error {
				for pid := range s.processes(" control --state ") {
					if _, was := control[pid]; !was {
						return nil
					}
				}
				return errors.New("none yet")
			})
			if err := os.WriteFile(filepath.Join(s.dir, "meltemi-bookshop", "reviews.yaml"), []byte(onlyV3), 0o644); err != nil {
				t.Fatal(err)
			}
			in := 0
			poll(t, "the change", func() error {
				_, body, err := get(page)
				if in++; !strings.Contains(body, "reviews-v3") {
					in = 0
				}
				if err == nil && in < 10 {
					err = errors.New("reviews other than v3 still answer")
				}
				return err
			})
			now := s.processes("--role (sidecar|router)")
			for pid, text := range proxies {
				if now[pid] == "" {
					t.Errorf("a proxy has restarted: %s", text)
				}
			}
			s.interrupt()
			if code := s.awaitEnd(); code != 0 {
				t.Errorf("exit code %d after an interrupt", code)
			}
			s.leavesNothing(before)
		})
	}
}

// What a killed up leaves behind, the next start takes away.
func TestNextStartCleansUp(t *testing.T) {
	for name, flags := range ways(t) {
		t.Run(name, func(t *testing.T) {
			before := links()
			s := start(t, 0, flags...)
			s.awaitReady()
			if err := s.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-s.done
			if len(s.processes("--role sidecar")) == 0 {
				t.Fatal("nothing was left behind: this test shows nothing")
			}
			again := exec.Command(filepath.Join(programs, "meltemi"), append([]string{"up", "--plain", "--for", "1ms"}, flags...)...)
			again.Dir = s.dir
			if out, err := again.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			s.leavesNothing(before)
		})
	}
}
