// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio/netns"
)

// runConfig runs this binary as an application in cfg's mesh.
func runConfig(cfg UpConfig, args ...string) (RunConfig, *buffer) {
	out := &buffer{}
	r := RunDefaults()
	r.Dir, r.Out = cfg.Dir, out
	r.Service, r.Version = "hello", "v1"
	r.Command = append([]string{os.Args[0], "app"}, args...)
	r.Env = []string{"PATH=" + os.Getenv("PATH")}
	r.Stdin, r.Stdout, r.Stderr = nil, out, out
	return r, out
}

// where returns the address that callers of a service dial.
func where(cfg UpConfig, service string) string {
	return whereIs([]string{folder{cfg.Dir}.registrations()})[service]
}

func TestRunJoinsAndLeaves(t *testing.T) {
	modes(t, func(t *testing.T, capture bool) {
		cfg, out := upConfig(t, capture)
		begin(t, cfg, out)
		r, said := runConfig(cfg)
		signals := make(chan os.Signal, 1)
		r.Signals = signals
		done := make(chan error, 1)
		go func() { done <- Run(t.Context(), r) }()
		within(t, "the app", func() bool { return strings.Contains(said.String(), "app is up") })
		if !strings.Contains(said.String(), "hello-v1 has joined the mesh as spiffe://cluster.local/ns/default/sa/default") {
			t.Errorf("%s", said)
		}
		// Callers reach it, and it reaches others by their names.
		addr := where(cfg, "hello")
		var body string
		within(t, "an answer", func() bool { body = get(t, "http://"+addr); return body == "hello from the app" })
		if got := get(t, "http://"+addr+"/?call="+url.QueryEscape("http://reviews:9080/health")); !strings.Contains(got, "Reviews is healthy") {
			t.Errorf("it called reviews and got %s", got)
		}
		if text := readFile(folder{cfg.Dir}.serviceFile(serviceName("default", "hello"))); !strings.Contains(text, "kind: Service") {
			t.Errorf("no Service was declared: %q", text)
		}
		// A second one has a name of its own.
		second, said2 := runConfig(cfg)
		second.Signals = make(chan os.Signal)
		ctx, cancel := context.WithCancel(t.Context())
		done2 := make(chan error, 1)
		go func() { done2 <- Run(ctx, second) }()
		within(t, "the second", func() bool { return strings.Contains(said2.String(), "app is up") })
		if !strings.Contains(said2.String(), "hello-v1-2 has joined") {
			t.Errorf("%s", said2)
		}
		signals <- os.Interrupt
		if err := <-done; err != nil {
			t.Errorf("%v\n%s", err, said)
		}
		if readFile(folder{cfg.Dir}.serviceFile(serviceName("default", "hello"))) == "" {
			t.Error("the Service went with the first of two members")
		}
		cancel()
		if err := <-done2; err != nil {
			t.Errorf("%v\n%s", err, said2)
		}
		if readFile(folder{cfg.Dir}.serviceFile(serviceName("default", "hello"))) != "" || where(cfg, "hello") != "" {
			t.Error("it has not left")
		}
	})
}

// Whoever comes and goes at the same time takes nothing from others, nor from whoever takes its place.
func TestRunsComeAndGo(t *testing.T) {
	modes(t, func(t *testing.T, capture bool) {
		cfg, out := upConfig(t, capture)
		begin(t, cfg, out)
		stays, said := runConfig(cfg)
		ctx, leave := context.WithCancel(t.Context())
		stayed := make(chan error, 1)
		go func() { stayed <- Run(ctx, stays) }()
		within(t, "the app", func() bool { return strings.Contains(said.String(), "app is up") })

		const side, rounds = 4, 4
		var wg sync.WaitGroup
		for i := range side {
			wg.Go(func() {
				for range rounds { // the next takes the place of the one before
					r, said := runConfig(cfg)
					r.Service, r.Version, r.Command = fmt.Sprint("par", i), "", []string{"true"}
					if !capture { // its proxy takes its calls from the first moment
						r.Command = []string{"bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/${HTTP_PROXY##*:}"}
					}
					if i == 0 {
						r.Service = "hello"
					}
					if err := Run(t.Context(), r); err != nil {
						t.Errorf("%s: %v\n%s", r.Service, err, said)
					}
				}
			})
		}
		wg.Wait()
		service := folder{cfg.Dir}.serviceFile(serviceName("default", "hello"))
		if readFile(service) == "" || where(cfg, "hello") == "" {
			t.Error("the Service of one that stays is gone")
		}
		if left, _ := filepath.Glob(folder{cfg.Dir}.serviceFile(serviceName("default", "par*"))); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		leave()
		if err := <-stayed; err != nil {
			t.Errorf("%v\n%s", err, said)
		}
		if readFile(service) != "" {
			t.Error("the Service of one that has left is there")
		}
	})
}

func get(t *testing.T, url string) string {
	t.Helper()
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b := make([]byte, 4096)
	n, _ := resp.Body.Read(b)
	return string(b[:n])
}

func TestRunTellsHowTheCommandEnded(t *testing.T) {
	cfg, out := upConfig(t, false)
	begin(t, cfg, out)
	r, _ := runConfig(cfg, "fail")
	var exit *ExitError
	if err := Run(t.Context(), r); !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("%v", err)
	}
	r, _ = runConfig(cfg)
	r.Command = []string{"sh", "-c", "kill -9 $$"}
	if err := Run(t.Context(), r); !errors.As(err, &exit) || exit.Code != 128+9 {
		t.Errorf("%v", err)
	}
	r.Program = "/bin/false" // a proxy that ends at once
	if err := Run(t.Context(), r); err == nil || !strings.Contains(err.Error(), "did not become ready") {
		t.Errorf("%v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	for name, change := range map[string]func(*RunConfig){
		"no mesh":       func(*RunConfig) {},
		"no command":    func(r *RunConfig) { r.Command = nil },
		"bad service":   func(r *RunConfig) { r.Service = "Hello World" },
		"bad namespace": func(r *RunConfig) { r.Namespace = "../x" },
		"bad version":   func(r *RunConfig) { r.Version = "v/1" },
		"no folder":     func(r *RunConfig) { r.Dir = "" },
	} {
		r, _ := runConfig(UpConfig{Config: Config{Dir: t.TempDir()}})
		change(&r)
		if err := Run(t.Context(), r); err == nil {
			t.Errorf("%s: ran", name)
		}
	}
}

func TestACommandThatIsNoneDoesNotJoin(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for command, code := range map[string]int{"no-such-command-here": 127, "/nonexistent/command": 127, plain: 126, t.TempDir(): 126} {
		r, said := runConfig(UpConfig{Config: Config{Dir: t.TempDir()}}) // where no mesh runs: that is not asked
		r.Command = []string{command}
		var exit *ExitError
		if err := Run(t.Context(), r); !errors.As(err, &exit) || exit.Code != code || exit.Why == nil {
			t.Errorf("%s: %v", command, err)
		}
		if said.String() != "" {
			t.Errorf("%s: %s", command, said)
		}
	}
}

func TestASignalWhileJoiningEndsTheRun(t *testing.T) {
	cfg, out := upConfig(t, false)
	begin(t, cfg, out)
	r, said := runConfig(cfg)
	script := filepath.Join(t.TempDir(), "proxy")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.Program = script // a proxy that is never ready
	signals := make(chan os.Signal, 1)
	r.Signals = signals
	done := make(chan error, 1)
	go func() { done <- Run(t.Context(), r) }()
	within(t, "it is registered", func() bool { return where(cfg, "hello") != "" })
	signals <- syscall.SIGTERM
	var exit *ExitError
	if err := <-done; !errors.As(err, &exit) || exit.Code != 128+15 {
		t.Errorf("%v", err)
	}
	if where(cfg, "hello") != "" || strings.Contains(said.String(), "joined") {
		t.Errorf("it has not left: %s", said)
	}
}

// playRun is a Run in a process of its own, for tests that kill it.
func playRun(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	cfg := RunDefaults()
	fs.StringVar(&cfg.Dir, "dir", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	cfg.Service, cfg.Command = "hello", fs.Args()
	return Run(ctx, cfg)
}

func TestTheNextStartCleansUpAfterARunThatCrashed(t *testing.T) {
	modes(t, func(t *testing.T, capture bool) {
		cfg, out := upConfig(t, capture)
		end := begin(t, cfg, out)
		said := &buffer{}
		cmd := exec.Command(os.Args[0], "run", "--dir", cfg.Dir, os.Args[0], "app")
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, "the app", func() bool { return strings.Contains(said.String(), "app is up") })
		_ = cmd.Process.Signal(syscall.SIGSTOP) // it does not notice that the mesh ends
		if err := end(); err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Kill()
		within(t, "its end", func() bool { return made.Born(cmd.Process.Pid) == "" })
		if runtime.GOOS == "linux" && len(children()) == 0 {
			t.Error("nothing survived, so nothing is shown")
		}
		out2 := &buffer{}
		cfg.Out = out2
		end = begin(t, cfg, out2)
		_ = cmd.Wait() // its output was open while its children lived
		if got := where(cfg, "hello"); got != "" {
			t.Errorf("it is still registered at %s", got)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestAKilledRunLeavesTheMesh(t *testing.T) {
	modes(t, func(t *testing.T, capture bool) {
		cfg, out := upConfig(t, capture)
		end := begin(t, cfg, out)
		said := &buffer{}
		cmd := exec.Command(os.Args[0], "run", "--dir", cfg.Dir, os.Args[0], "app")
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		within(t, "the app", func() bool { return strings.Contains(said.String(), "app is up") })
		if where(cfg, "hello") == "" {
			t.Error("it is not registered, so nothing is shown")
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // its output is open while its children live
		within(t, "its leaving", func() bool { return where(cfg, "hello") == "" })
		within(t, "the news", func() bool { return strings.Contains(out.String(), "what it left behind is removed") })
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestALivingRunOutlivesTheMesh(t *testing.T) {
	cfg, out := upConfig(t, false)
	end := begin(t, cfg, out)
	r, said := runConfig(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, r) }()
	within(t, "the app", func() bool { return strings.Contains(said.String(), "app is up") })
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `what "meltemi run" has started (1) goes on`) {
		t.Errorf("of what goes on it says nothing:\n%s", out)
	}
	out2 := &buffer{}
	cfg.Out = out2
	end = begin(t, cfg, out2)
	if got := where(cfg, "hello"); got == "" {
		t.Error("the next mesh does not know it")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestACapturedRunEndsWithTheMesh(t *testing.T) {
	cfg, out := upConfig(t, true)
	end := begin(t, cfg, out)
	r, said := runConfig(cfg)
	done := make(chan error, 1)
	go func() { done <- Run(t.Context(), r) }()
	within(t, "the app", func() bool { return strings.Contains(said.String(), "app is up") })
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errMeshEnded) {
		t.Errorf("it ends with %v", err)
	}
	if !strings.Contains(out.String(), `what "meltemi run" has started (1) ends now, too`) {
		t.Errorf("of what ends it says nothing:\n%s", out)
	}
}

func TestProcessesRunAsWhoTheyShould(t *testing.T) {
	cfg, out := upConfig(t, true)
	begin(t, cfg, out)
	for name, uid := range map[string]string{"proxy of reviews-v1": "1337", "reviews-v1": "65534", "proxy of istio-ingressgateway": "1337"} {
		p := processOf(t, cfg, name)
		status := readFile(fmt.Sprintf("/proc/%d/status", p.PID))
		if !strings.Contains(status, "Uid:\t"+uid+"\t"+uid) {
			t.Errorf("%s does not run as %s", name, uid)
		}
		caps := uint64(0)
		if name == "proxy of istio-ingressgateway" {
			caps = 1 << 10 // CAP_NET_BIND_SERVICE
		}
		if !strings.Contains(status, fmt.Sprintf("CapEff:\t%016x", caps)) {
			t.Errorf("%s has other capabilities than %x", name, caps)
		}
	}
	f := folder{cfg.Dir}
	names, err := netns.List(f.space(""))
	if err != nil || len(names) != 7 || !slices.Contains(names, f.space("hub")) {
		t.Errorf("namespaces %v, %v", names, err)
	}
}
