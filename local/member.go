// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/meltemi/meltemi/control/ca"
	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/local/watch"
)

// tokenLife is how long a join token serves. A proxy needs it once; a new one is issued when it is started again.
const tokenLife = time.Hour

// proxyLog ends the name of a proxy's log; its application's has the bare name.
const proxyLog = ".proxy"

// A crew brings members in.
type crew struct {
	folder  folder
	journal *made.Journal
	place   place
	control string // where proxies find the control plane
	runtime string // folder that proxies may read
	program string // of our own children
	proxy   string // the data plane alone; "" for program
	say     func(bad bool, format string, args ...any)
}

// A unit is a member in its place, with its two processes.
type unit struct {
	*crew
	m *Member
	// app is how the application is started; its name is empty if there is none.
	app command

	mu          sync.Mutex
	proxy, main *process
	token       made.Thing // that the proxy was started with
}

// enter gives m a place and registers it. Its processes are not started yet.
func (c *crew) enter(ctx context.Context, m *Member, app command) (*unit, error) {
	u := &unit{crew: c, m: m, app: app}
	if err := c.place.settle(ctx, c.journal, m); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(u.dir(), 0o700); err != nil {
		return nil, err
	}
	_ = os.Remove(c.folder.log(m.ID() + proxyLog))
	_ = os.Remove(c.folder.log(m.ID()))
	if m.Gateway {
		return u, nil
	}
	text, err := m.registration()
	if err != nil {
		return nil, err
	}
	path := c.folder.registration(m)
	if err := c.journal.Record(made.Thing{Kind: made.File, Name: path}); err != nil {
		return nil, err
	}
	return u, made.WriteFile(path, text, 0o644)
}

func (f folder) registration(m *Member) string {
	return filepath.Join(f.registrations(), m.Namespace+"."+m.Name+".yaml")
}

// dir is the member's own folder, which only its proxy may read.
func (u *unit) dir() string { return filepath.Join(u.runtime, "members", u.m.ID()) }

// startProxy starts the member's proxy with a fresh token.
func (u *unit) startProxy() error {
	tokens, err := ca.OpenTokens(u.folder.state())
	if err != nil {
		return err
	}
	token, info, err := tokens.Issue(ca.ForIdentity(u.m.identity()), tokenLife)
	if err != nil {
		return err
	}
	next := made.Thing{Kind: made.File, Name: tokens.File(info.ID)}
	if err := u.journal.Record(next); err != nil {
		return err
	}
	if u.token.Name != "" { // a proxy that ends again and again leaves one token
		if err := u.journal.UndoOne(context.Background(), u.token); err != nil {
			return err
		}
	}
	u.token = next
	file := filepath.Join(u.dir(), "token")
	if err := made.WriteFile(file, []byte(token), 0o600); err != nil {
		return err
	}
	c := command{
		name:    "proxy of " + u.m.ID(),
		program: u.program,
		args:    proxyArgs(u.m, u.control, filepath.Join(u.runtime, rootFile), file, u.place.resolver()),
		log:     u.folder.log(u.m.ID() + proxyLog),
	}
	if u.crew.proxy != "" {
		c.program, c.open, c.args = u.crew.proxy, true, c.args[1:]
	}
	u.place.proxy(u.m, &c)
	if c.user != nil {
		if err := errors.Join(os.Chown(u.dir(), int(c.user.uid), int(c.user.gid)), os.Chown(file, int(c.user.uid), int(c.user.gid))); err != nil {
			return err
		}
	}
	p, err := start(u.journal, c)
	if err == nil {
		err = u.announce(p)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if p != nil { // or else the one that has ended is known
		u.proxy = p
	}
	return err
}

// announce says where the member's proxy can be asked, for diagnosis.
func (u *unit) announce(p *process) error {
	dir := filepath.Join(u.folder.dir, "proxies")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, u.m.ID()+".json")
	if err := u.journal.Record(made.Thing{Kind: made.File, Name: file}); err != nil {
		return err
	}
	about := map[string]any{"workload": u.m.Name, "namespace": u.m.Namespace, "admin": loopback(u.m.Admin).String(), "pid": p.cmd.Process.Pid}
	if path := u.m.Space.Path(); path != "" {
		about["netns"] = filepath.Base(path)
	}
	b, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return err
	}
	return made.WriteFile(file, append(b, '\n'), 0o644)
}

// startApp starts the member's application, if it has one.
func (u *unit) startApp() error {
	if u.app.name == "" {
		return nil
	}
	c := u.app
	u.place.app(u.m, &c)
	p, err := start(u.journal, c)
	u.mu.Lock()
	defer u.mu.Unlock()
	if p != nil { // or else the one that has ended is known
		u.main = p
	}
	return err
}

func (u *unit) processes() (proxy, app *process) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.proxy, u.main
}

// adminURL is the proxy's admin server, as reached through the member's place.
func (u *unit) adminURL() string { return "http://" + loopback(u.m.Admin).String() }

// target is what a Watcher needs to look at the member.
func (u *unit) target() watch.Target {
	return watch.Target{Name: u.m.ID(), URL: u.adminURL(), Dial: u.place.reach(u.m)}
}

// awaitReady waits until the proxy says that it is ready.
func (u *unit) awaitReady(ctx context.Context) error {
	proxy, _ := u.processes()
	client := &http.Client{
		Transport: &http.Transport{DialContext: u.place.reach(u.m), DisableKeepAlives: true},
		Timeout:   time.Second,
	}
	err := poll(ctx, func() error {
		if !proxy.alive() {
			return stopPolling{fmt.Errorf("it ended: %s", proxy.ended())}
		}
		return getOK(ctx, client, u.adminURL()+"/ready")
	})
	if err != nil {
		return fmt.Errorf("proxy of %s did not become ready: %w%s", u.m.ID(), err, u.folder.tail(u.m.ID()+proxyLog))
	}
	return nil
}

// stopPolling is an error that waiting does not mend.
type stopPolling struct{ error }

// poll tries until try succeeds, fails for good, or ctx ends; then the last failure is the reason.
func poll(ctx context.Context, try func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		var final stopPolling
		if err == nil || errors.As(err, &final) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}

func getOK(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return stopPolling{err}
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}

// tail returns the last lines of a log, for errors.
func (f folder) tail(name string) string {
	b, err := os.ReadFile(f.log(name))
	if err != nil || len(b) == 0 {
		return "; its log " + f.log(name) + " is empty"
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	lines = lines[max(0, len(lines)-5):]
	return "; the end of its log " + f.log(name) + ":\n  " + strings.Join(lines, "\n  ")
}

// keep starts the member's processes again when they end, after pause; with none, it only says so.
// It returns when ctx ends.
func (u *unit) keep(ctx context.Context, pause time.Duration) {
	var wg sync.WaitGroup
	proxy, app := u.processes()
	wg.Go(func() {
		u.keepOne(ctx, proxy, u.startProxy, pause, func() *process { p, _ := u.processes(); return p })
	})
	if app != nil {
		wg.Go(func() { u.keepOne(ctx, app, u.startApp, pause, func() *process { _, a := u.processes(); return a }) })
	}
	wg.Wait()
}

func (c *crew) keepOne(ctx context.Context, p *process, again func() error, pause time.Duration, current func() *process) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.done:
		}
		if ctx.Err() != nil {
			return
		}
		if pause <= 0 {
			c.say(true, "%s: %s", p.name, p.ended())
			return
		}
		c.say(true, "%s: %s; it is started again", p.name, p.ended())
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		if err := again(); err != nil {
			c.say(true, "%s: %s; it is tried again", p.name, err)
			if next := current(); next.alive() {
				p = next // it runs, and only something about it went wrong
			}
			continue
		}
		p = current()
	}
}

// leave takes the member out: no longer registered, its processes ended.
func (u *unit) leave(ctx context.Context) error {
	var errs []error
	if !u.m.Gateway {
		errs = append(errs, u.journal.UndoOne(ctx, made.Thing{Kind: made.File, Name: u.folder.registration(u.m)}))
	}
	proxy, app := u.processes()
	for _, p := range []*process{app, proxy} {
		if p != nil {
			errs = append(errs, p.stop(ctx, u.journal))
		}
	}
	return errors.Join(errs...)
}

// declare claims m's service, and writes it unless the configuration or another member has done so.
func (c *crew) declare(m *Member, paths []string) error {
	lock, err := lockFolder(c.folder.taken())
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := c.folder.take(c.journal, serviceName(m.Namespace, m.Service)+claimedBy+m.Name); err != nil {
		return err
	}
	if c.folder.hasService(m, paths) {
		return nil
	}
	text, err := m.service()
	if err != nil {
		return err
	}
	return made.WriteFile(c.folder.serviceFile(serviceName(m.Namespace, m.Service)), text, 0o644)
}

// claimedBy stands between a service's name and that of a member that claims it; in no name is such a character.
const claimedBy = "~"

func serviceName(namespace, name string) string { return servicePrefix + namespace + "." + name }

const servicePrefix = "service."

func (f folder) serviceFile(name string) string {
	return filepath.Join(f.registrations(), name+".yaml")
}

func (f folder) hasService(m *Member, paths []string) bool {
	found := false
	for _, root := range append([]string{f.registrations()}, paths...) {
		_ = eachHead(root, func(h head) {
			found = found || h.Kind == "Service" && h.Metadata.Name == m.Service && h.Metadata.Namespace == m.Namespace
		})
	}
	return found
}

// sweepServices removes Services that were declared for members, if none claims them any more.
func (f folder) sweepServices() error {
	if _, err := os.Lstat(f.taken()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := lockFolder(f.taken())
	if err != nil {
		return err
	}
	defer lock.Close()
	claims, err := os.ReadDir(f.taken())
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	claimed := map[string]bool{}
	for _, c := range claims {
		name, _, _ := strings.Cut(c.Name(), claimedBy)
		claimed[f.serviceFile(name)] = true
	}
	files, err := filepath.Glob(f.serviceFile(servicePrefix + "*"))
	for _, file := range files {
		if !claimed[file] {
			if gone := os.Remove(file); !errors.Is(gone, fs.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
	}
	return err
}

// eachHead calls f for each document in the YAML files of root. What goes away meanwhile is not there.
func eachHead(root string, f func(head)) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != root {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if ext := filepath.Ext(path); ext != ".yaml" && ext != ".yml" {
			return nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, h := range heads(text) {
			f(h)
		}
		return nil
	})
}

// gatewayPorts returns the ports that the ingress gateway is asked to listen on.
func gatewayPorts(paths []string) (ports []uint16) {
	seen := map[uint16]bool{}
	for _, root := range paths {
		_ = eachHead(root, func(h head) {
			if h.Kind != "Gateway" {
				return
			}
			for _, s := range h.Spec.Servers {
				if p := s.Port.Number; p != 0 && !seen[p] {
					seen[p] = true
					ports = append(ports, p)
				}
			}
		})
	}
	return ports
}

// wildcard is every address of the machine.
func wildcard(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv6Unspecified(), port) }
