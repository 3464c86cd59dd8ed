// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is a program under measurement, with what it printed.
type process struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

// launch starts a program and waits until it accepts connections on addr.
func launch(ctx context.Context, addr string, argv ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 2 * time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = c.Close()
			return p, nil
		}
		if p.gone() {
			break
		}
	}
	p.stop()
	return nil, fmt.Errorf("%s does not listen on %s:\n%s", argv[0], addr, p.out.String())
}

func (p *process) gone() bool { return syscall.Kill(p.cmd.Process.Pid, 0) != nil }

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-done
	}
}

// cpu is what the process has used so far, user and system.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, errors.New("/proc/PID/stat is not as expected")
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(user+system) * tick, nil
}

// rss is resident memory in KiB.
func (p *process) rss() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+)`).FindSubmatch(b)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// load sends requests for some seconds and says how many were answered well.
func load(ctx context.Context, addr string, http2 bool, seconds int) (int, error) {
	argv := []string{"wrk", "-t1", "-c32", fmt.Sprintf("-d%ds", seconds), "http://" + addr + "/"}
	if http2 {
		argv = []string{"h2load", "-t1", "-c4", "-m25", fmt.Sprintf("-D%d", seconds), "http://" + addr + "/"}
	}
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", argv[0], err, out)
	}
	if http2 {
		m := regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`).FindSubmatch(out)
		if m == nil || string(m[3]) != "0" || string(m[4]) != "0" {
			return 0, fmt.Errorf("not all answers were good:\n%s", out)
		}
		return strconv.Atoi(string(m[1]))
	}
	if bytes.Contains(out, []byte("Non-2xx")) || bytes.Contains(out, []byte("Socket errors")) {
		return 0, fmt.Errorf("not all answers were good:\n%s", out)
	}
	m := regexp.MustCompile(`(\d+) requests in`).FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("wrk printed no count:\n%s", out)
	}
	return strconv.Atoi(string(m[1]))
}
