// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package readme

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
)

const (
	root   = "../.."
	nobody = 65534
	// building is the time that a first build may take on a small machine, modules included.
	building = 8 * time.Minute
	patience = 60 * time.Second
)

// The README's commands, and how each is known to do what the README says.
var known = map[string]func(*person, string){
	"go run ./cmd/meltemi up --check": (*person).checks,
	"go run ./cmd/meltemi up":         (*person).starts,
	"go run ./cmd/meltemi up --plain": (*person).starts,
	"go run ./cmd/meltemi explain --from productpage http://ratings:9080/ratings/0":       (*person).explains,
	"go run ./cmd/meltemi run --service hello --port 8000 -- python3 -m http.server 8000": (*person).joins,
	"make test": nil, // this is what runs us, or ran before
}

func TestCommandsAsWeAre(t *testing.T) { walk(t, 0) }

func TestCommandsAsAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("we are an ordinary user: TestCommandsAsWeAre has shown it")
	}
	walk(t, nobody)
}

func TestEachCommandIsKnown(t *testing.T) {
	for _, c := range commands(t) {
		if _, ok := known[c]; !ok {
			t.Errorf("the README's command %q is not tested here", c)
		}
	}
}

// commands are those in the README's blocks and lines of code, without comments.
func commands(t *testing.T) (all []string) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)(?:^(?:\\$ )?|`)((?:go run|make) [^`#\n]+)").FindAllStringSubmatch(string(text), -1) {
		if c := strings.TrimSpace(m[1]); !slices.Contains(all, c) && !regexp.MustCompile("^make (check|race|e2e|bench)").MatchString(c) {
			all = append(all, c)
		}
	}
	if len(all) < len(known) {
		t.Fatalf("the README names only %q", all)
	}
	return all
}

// walk does what the README says, in the order in which somebody could.
func walk(t *testing.T, user uint32) {
	p := newPerson(t, user)
	all := commands(t)
	order := func(c string) int { // checks, then the mesh with a picture, then what needs a mesh
		return slices.IndexFunc([]string{"--check", "up", "explain", "run --service"}, func(s string) bool {
			return strings.Contains(c, s) || strings.HasSuffix(c, s)
		})
	}
	slices.SortStableFunc(all, func(a, b string) int { return order(a) - order(b) })
	for _, c := range all {
		if do := known[c]; do != nil {
			t.Log("$ " + c)
			do(p, c)
		}
	}
	p.spares()
	p.leave()
}

// spares looks at what the mesh costs whoever runs workloads: the memory of their sidecars, at rest.
func (p *person) spares() {
	p.t.Helper()
	const limit = 25 << 10 // KiB
	files, err := filepath.Glob(filepath.Join(p.dir, ".meltemi", "proxies", "*.json"))
	if err != nil || len(files) < 7 {
		p.t.Fatalf("proxies of the mesh: %q, %v", files, err)
	}
	var rss []int
	p.await("a mesh whose sidecars take 25 MiB or less", 3*time.Minute, func() bool {
		rss = rss[:0]
		for _, file := range files {
			var about struct{ PID int }
			b, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(b, &about)
			}
			status, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/status", about.PID))
			m := regexp.MustCompile(`(?m)^Name:\s+meltemi-proxy$[\s\S]*^VmRSS:\s+(\d+) kB`).FindSubmatch(status)
			if err = errors.Join(err, err2); err != nil || m == nil {
				p.t.Fatalf("%s: no process of meltemi-proxy: %v\n%s", file, err, status)
			}
			kib, _ := strconv.Atoi(string(m[1]))
			rss = append(rss, kib)
		}
		return slices.Max(rss) <= limit
	})
	p.t.Logf("memory of the proxies in KiB: %d", rss)
}

// A person sits in a copy of the repository.
type person struct {
	t    *testing.T
	user uint32
	dir  string
	env  []string
	mesh *program // the last that was started
}

func newPerson(t *testing.T, user uint32) *person {
	t.Helper()
	home, err := os.MkdirTemp("", "meltemi-readme-")
	if err != nil {
		t.Fatal(err)
	}
	p := &person{t: t, user: user, dir: filepath.Join(home, "meltemi"), env: os.Environ()}
	t.Cleanup(func() {
		// The module cache is read-only to keep people from editing it.
		if out, err := exec.Command("chmod", "-R", "u+w", home).CombinedOutput(); err != nil {
			t.Logf("%v: %s", err, out)
		}
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	sh := exec.Command("sh", "-c", `mkdir "$0" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$0"`, p.dir)
	sh.Dir = root
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("copy of the repository: %v: %s", err, out)
	}
	if user != 0 {
		p.env = append(p.env, "HOME="+home, "GOCACHE="+filepath.Join(home, "cache"), "GOMODCACHE="+filepath.Join(home, "modules"), "GOPATH="+filepath.Join(home, "go"))
		if out, err := exec.Command("chown", "-R", "nobody", home).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return p
}

// A program is a command that runs.
type program struct {
	*exec.Cmd
	done chan struct{}
	err  error
	mu   sync.Mutex
	out  bytes.Buffer
}

func (g *program) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out.Write(b)
}

func (g *program) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out.String()
}

// start runs a line in a shell, in a process group of its own as terminals give one.
func (p *person) start(line string) *program {
	p.t.Helper()
	g := &program{Cmd: exec.Command("sh", "-c", "exec "+line), done: make(chan struct{})}
	g.Dir, g.Env = p.dir, p.env
	g.Stdout, g.Stderr = g, g
	g.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.user != 0 {
		g.SysProcAttr.Credential = &syscall.Credential{Uid: p.user, Gid: p.user}
	}
	if err := g.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		g.err = g.Wait()
		close(g.done)
	}()
	p.t.Cleanup(func() { p.end(g) })
	return g
}

// interrupt is Ctrl-C: the whole group hears it.
func (g *program) interrupt() { _ = syscall.Kill(-g.Process.Pid, syscall.SIGINT) }

func (p *person) end(g *program) {
	p.t.Helper()
	select {
	case <-g.done:
		return
	default:
	}
	g.interrupt()
	select {
	case <-g.done:
	case <-time.After(patience):
		_ = syscall.Kill(-g.Process.Pid, syscall.SIGKILL)
		p.t.Errorf("%s does not end:\n%s", g, g.text())
	}
}

// code waits for the end and returns the exit code.
func (p *person) code(g *program, limit time.Duration) int {
	p.t.Helper()
	select {
	case <-g.done:
	case <-time.After(limit):
		p.t.Fatalf("%s: no end:\n%s", g, g.text())
	}
	if exit := (*exec.ExitError)(nil); errors.As(g.err, &exit) {
		return exit.ExitCode()
	} else if g.err != nil {
		p.t.Fatal(g.err)
	}
	return 0
}

func (p *person) checks(line string) {
	p.t.Helper()
	g := p.start(line)
	if code := p.code(g, building); code != 0 {
		p.t.Fatalf("%s: exit code %d:\n%s", line, code, g.text())
	}
	for _, check := range []string{"weights", "header", "fault", "authorization", "mutual-tls", "plaintext-refused", "change"} {
		if !regexp.MustCompile(`(?m)^ok +` + check + ` `).MatchString(g.text()) {
			p.t.Errorf("%s: no line says that %s is ok:\n%s", line, check, g.text())
		}
	}
}

func (p *person) starts(line string) {
	p.t.Helper()
	p.leave()
	p.mesh = p.start(line)
	page := ""
	p.await("a page to look at", building, func() bool {
		if m := regexp.MustCompile(`ready in .*: (http://\S+/productpage)`).FindStringSubmatch(p.mesh.text()); m != nil {
			page = m[1]
		}
		return page != "" && get(page) == http.StatusOK
	})
}

func (p *person) explains(line string) {
	p.t.Helper()
	g := p.start(line)
	p.code(g, building)
	for _, want := range []string{"VirtualService/default/ratings spec.http[1]", "AuthorizationPolicy/default/ratings-reader", "answers 403"} {
		if !strings.Contains(g.text(), want) {
			p.t.Errorf("%s does not say %q:\n%s", line, want, g.text())
		}
	}
}

func (p *person) joins(line string) {
	p.t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		p.t.Log("python3 is not here: what joins cannot run")
		return
	}
	g := p.start(line)
	p.await("hello in the mesh", building, func() bool {
		status := p.start("go run ./cmd/meltemi proxy-status")
		return p.code(status, building) == 0 && strings.Contains(status.text(), "hello")
	})
	p.end(g)
}

// leave ends the mesh, which takes everything with it.
func (p *person) leave() {
	p.t.Helper()
	if p.mesh != nil {
		p.end(p.mesh)
		p.mesh = nil
	}
	left, _ := filepath.Glob("/run/netns/meltemi-*")
	if len(left) > 0 {
		p.t.Errorf("left: %q", left)
	}
}

func (p *person) await(what string, limit time.Duration, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(200 * time.Millisecond) {
		if p.mesh != nil {
			select {
			case <-p.mesh.done:
				p.t.Fatalf("the mesh ended: %v\n%s", p.mesh.err, p.mesh.text())
			default:
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("there is not: %s\n%s", what, p.mesh.text())
		}
	}
}

func get(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
