// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/meltemi/meltemi/control/ca"
	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/local/view"
	"github.com/meltemi/meltemi/local/watch"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/samples/bookshop"
)

// prepare finds out where everything goes. Nothing runs yet.
func (u *up) prepare(ctx context.Context) error {
	if err := u.configuration(); err != nil {
		return err
	}
	if err := u.freeOfOthers(ctx); err != nil {
		return err
	}
	why := error(nil)
	if u.cfg.NoCapture {
		why = errors.New("as asked")
	} else {
		why = canCapture()
	}
	runtime := filepath.Join(u.folder.dir, "runtime")
	if why == nil {
		runtime = "/run/meltemi-" + u.folder.id()
	}
	if u.cfg.RuntimeDir != "" {
		runtime = u.cfg.RuntimeDir
	}
	if err := u.makeRuntime(runtime); err != nil {
		return err
	}
	host := loopback(0).Addr()
	u.crew = &crew{folder: u.folder, journal: u.journal, place: explicit{u.ports}, runtime: runtime, program: u.cfg.Program, proxy: u.cfg.Proxy, say: u.say}
	how := "through explicit proxies (" + fmt.Sprint(why) + ")"
	if why == nil {
		var err error
		if u.capture, err = newCaptured(ctx, u.journal, u.folder, u.ports, runtime); err != nil {
			return err
		}
		nsswitch, _ := os.ReadFile("/etc/nsswitch.conf") // without one, libc looks at files and DNS
		if err := u.capture.writeOverlay(string(nsswitch)); err != nil {
			return err
		}
		host = u.capture.host()
		u.crew.place = u.capture
		how = "transparently, in network namespaces on " + u.capture.subnet.String()
	}
	u.crew.control = fmt.Sprintf("%s:%d", host, u.cfg.XDS)
	u.mesh = Mesh{
		ID: u.folder.id(), PID: os.Getpid(), Born: made.Born(os.Getpid()), Capture: u.capture != nil,
		Paths:      append(append([]string{}, u.cfg.Paths...), u.folder.registrations()),
		Control:    u.crew.control,
		Monitoring: fmt.Sprintf("http://127.0.0.1:%d", u.cfg.Monitoring),
		Page:       fmt.Sprintf("http://localhost:%d", firstPort(u.cfg.Paths)),
		Runtime:    runtime,
	}
	if u.capture != nil {
		u.mesh.Subnet, u.mesh.Switch = u.capture.subnet.String(), filepath.Base(u.capture.hub.Path())
	}
	u.watcher = watch.New(watch.Defaults(u.mesh.Monitoring))
	if u.capture != nil {
		if err := u.capture.share(u.journal); err != nil {
			u.say(true, "workloads cannot reach beyond the mesh: %s", err)
		}
	}
	u.face.Begin(view.Header{Page: u.mesh.Page + pagePath, Config: shown(u.cfg.Paths...), Scratch: u.cfg.Check, State: shown(u.folder.dir), How: how})
	return u.folder.publish(u.journal, u.mesh)
}

// configuration settles what the mesh is configured by.
func (u *up) configuration() error {
	if len(u.cfg.Paths) == 0 {
		kept, err := writeSample(bookshop.Configuration(), u.cfg.Sample)
		if err != nil {
			return err
		}
		if len(kept) > 0 {
			fmt.Fprintf(u.cfg.Out, "using your own %s in %s\n", strings.Join(kept, ", "), u.cfg.Sample)
		}
		u.cfg.Paths = []string{u.cfg.Sample}
		u.sample = true
	}
	for i, p := range u.cfg.Paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		if _, err := os.Stat(abs); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		u.cfg.Paths[i] = abs
	}
	if !u.cfg.Check {
		return nil
	}
	// A check changes configuration: it works on a copy.
	scratch := filepath.Join(u.folder.dir, "check")
	if err := u.journal.Record(made.Thing{Kind: made.Folder, Name: scratch}); err != nil {
		return err
	}
	if err := copyConfiguration(u.cfg.Paths, scratch); err != nil {
		return err
	}
	u.cfg.Paths = []string{scratch}
	return nil
}

// freeOfOthers fails if somebody else has a port that we need, and names them.
func (u *up) freeOfOthers(ctx context.Context) error {
	needed := []netipPort{{"the control plane's xDS (--xds-port)", u.cfg.XDS}, {"the control plane's monitoring (--monitoring-port)", u.cfg.Monitoring}}
	for _, p := range gatewayPorts(u.cfg.Paths) {
		needed = append(needed, netipPort{"the ingress gateway (a Gateway's spec.servers.port)", p})
	}
	for _, n := range needed {
		l, err := netio.Listen(ctx, wildcard(n.port), netio.SocketOptions{})
		if err != nil {
			return fmt.Errorf("%s: %w", n.what, err)
		}
		_ = l.Close()
	}
	return nil
}

type netipPort struct {
	what string
	port uint16
}

func firstPort(paths []string) uint16 {
	if ports := gatewayPorts(paths); len(ports) > 0 {
		return ports[0]
	}
	return 8080
}

// makeRuntime makes the folder that proxies read, with the root certificate in it.
func (u *up) makeRuntime(dir string) error {
	if err := u.journal.Record(made.Thing{Kind: made.Folder, Name: dir}); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "members"), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask is
		return err
	}
	cfg := ca.Defaults()
	cfg.Dir = u.folder.state()
	authority, err := ca.Open(cfg)
	if err != nil {
		return err
	}
	return made.WriteFile(filepath.Join(dir, rootFile), authority.RootPEM(), 0o644)
}
