// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/netio/freeport"
)

// A joiner is a command that joins a running mesh.
type joiner struct {
	cfg    RunConfig
	folder folder
	ports  *freeport.Pool
	mesh   Mesh
	run    runJournal
	unit   *unit

	program string // of the command
}

// Run runs cfg.Command as a member of the mesh until it ends. A command that ends otherwise than well is
// told by an *ExitError; everything else is about the mesh.
func Run(ctx context.Context, cfg RunConfig) (err error) {
	r := &joiner{cfg: cfg}
	if err := r.validate(); err != nil {
		return err
	}
	abs, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return err
	}
	r.folder = folder{abs}
	r.ports = r.folder.ports()
	defer r.ports.Release()
	if r.program, err = lookUp(cfg.Command[0]); err != nil {
		return err
	}
	if r.mesh, err = r.folder.running(); err != nil {
		return err
	}
	if r.mesh.Capture {
		if err := canCapture(); err != nil {
			return fmt.Errorf("the mesh captures traffic, which takes root to join (%w): use sudo, or start the mesh with --no-capture", err)
		}
	}
	if p := r.cfg.Protocol; !r.mesh.Capture && p != mesh.Unset && !p.IsHTTP() {
		return fmt.Errorf("protocol %s: this mesh captures nothing, so that callers speak HTTP to a proxy that they are told of by HTTP_PROXY: start it as root for other protocols", p)
	}
	m, err := r.member()
	if err != nil {
		return err
	}
	defer func() {
		end := context.WithoutCancel(ctx)
		err = errors.Join(err, r.run.journal.Undo(end), r.folder.sweepServices())
	}()
	if err := r.join(ctx, m); err != nil {
		return err
	}
	return r.command(ctx)
}

// What a shell says of a command that it cannot run.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// lookUp finds the program of a command, before anybody joins for one that is none.
func lookUp(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", &ExitError{Code: exitNotFound, Why: fmt.Errorf("command: %w", err)}
	}
	return "", &ExitError{Code: exitNotExecutable, Why: fmt.Errorf("command: %w", err)}
}

// join is enter, until a signal: there is no command yet that it could be for.
func (r *joiner) join(ctx context.Context, m *Member) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	done := make(chan struct{})
	go func() {
		err = r.enter(ctx, m)
		close(done)
	}()
	select {
	case <-done:
		return err
	case s := <-r.cfg.Signals:
		cancel()
		<-done
		return &ExitError{Code: exitSignalled + number(s), Why: fmt.Errorf("ended by a signal before the command was started: %s", s)}
	}
}

func (r *joiner) validate() error {
	if err := r.cfg.validate(); err != nil {
		return err
	}
	if len(r.cfg.Command) == 0 {
		return errors.New("which command? Write it after --")
	}
	if err := checkName("service", r.cfg.Service); err != nil {
		return err
	}
	if err := checkName("namespace", r.cfg.Namespace); err != nil {
		return err
	}
	if p := r.cfg.Protocol; p == mesh.UDP || p == mesh.HTTPProxy {
		return fmt.Errorf("protocol %s: a sidecar does not carry it", p)
	}
	if r.cfg.Version != "" {
		return checkName("version", r.cfg.Version)
	}
	return nil
}

// defaultPort is what callers call a service on that Run declares for a command whose port it chose.
const defaultPort = 80

// member gives the command a name that no other member has, and begins its journal.
func (r *joiner) member() (*Member, error) {
	m := newMember(r.cfg.Namespace, r.cfg.Service, r.cfg.Version, "")
	m.Port, m.Protocol = r.cfg.Port, r.cfg.Protocol
	if m.Port == 0 {
		m.Port = defaultPort
	}
	m.App = loopback(r.cfg.Port)
	if r.mesh.Capture && r.cfg.Port == 0 {
		m.App = loopback(8080) // nobody else is in its namespace
	}
	base := m.Name
	for n := 2; ; n++ {
		if err := checkName("name", m.Name); err != nil {
			return nil, err
		}
		path := filepath.Join(r.folder.runs(), m.Namespace+"."+m.Name+".json")
		// The registration is the name's owner: O_EXCL lets one Run have it.
		f, err := os.OpenFile(r.folder.registration(&m), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err == nil {
			_ = f.Close()
			j, err := openRun(path)
			if err == nil {
				r.run = j
				err = errors.Join(j.begin(), j.journal.Record(made.Thing{Kind: made.File, Name: r.folder.registration(&m)}))
			}
			if err != nil {
				err = errors.Join(err, os.Remove(r.folder.registration(&m)))
			}
			return &m, err
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("state folder: %w", err)
		}
		m.Name = fmt.Sprintf("%s-%d", base, n)
	}
}

// enter brings the member in and waits for its proxy. The command is not started yet.
func (r *joiner) enter(ctx context.Context, m *Member) error {
	c := &crew{folder: r.folder, journal: r.run.journal, place: explicit{r.ports}, control: r.mesh.Control, runtime: r.mesh.Runtime, program: r.cfg.Program, proxy: r.cfg.Proxy, say: r.say}
	if r.mesh.Capture {
		p, err := rejoin(r.folder, r.mesh)
		if err != nil {
			return err
		}
		c.place = p
	}
	if err := c.declare(m, r.mesh.Paths); err != nil {
		return err
	}
	dir := (&unit{crew: c, m: m}).dir()
	if err := c.journal.Record(made.Thing{Kind: made.Folder, Name: dir}); err != nil {
		return err
	}
	var err error
	if r.unit, err = c.enter(ctx, m, command{}); err != nil {
		return err
	}
	if err := r.unit.startProxy(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.StartTimeout)
	defer cancel()
	if err := r.unit.awaitReady(ctx); err != nil {
		return err
	}
	r.say(false, "%s has joined the mesh as %s", m.ID(), m.identity())
	return nil
}

func (r *joiner) say(_ bool, format string, args ...any) {
	_, _ = fmt.Fprintf(r.cfg.Out, "meltemi: "+format+"\n", args...)
}

// meshEvery is how often a Run looks whether its mesh is there.
const meshEvery = time.Second

// errMeshEnded ends a command whose network namespace the mesh has cut off. Without capture it would go on, and be
// part of the next mesh.
var errMeshEnded = errors.New("the mesh has ended: start it with \"meltemi up\", then run this again")

// command runs the command to its end.
func (r *joiner) command(ctx context.Context) error {
	m := r.unit.m
	r.unit.app = command{
		name:    "command " + m.ID(),
		program: r.program,
		args:    r.cfg.Command[1:],
		env:     append(append([]string{}, r.cfg.Env...), fmt.Sprintf("PORT=%d", m.App.Port())),
		stdin:   r.cfg.Stdin, stdout: r.cfg.Stdout, stderr: r.cfg.Stderr,
		foreground: true,
	}
	if err := r.unit.startApp(); err != nil {
		return &ExitError{Code: exitNotExecutable, Why: err}
	}
	keeping, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	proxy, app := r.unit.processes()
	wg.Go(func() {
		r.unit.keepOne(keeping, proxy, r.unit.startProxy, restartPause, func() *process { p, _ := r.unit.processes(); return p })
	})
	look := time.NewTicker(meshEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if r.mesh.Capture && r.folder.ended(r.mesh) {
				r.say(true, "the mesh has ended, and with it the network of %s", m.ID())
				return errors.Join(errMeshEnded, app.stop(context.WithoutCancel(ctx), r.run.journal))
			}
		case s := <-r.cfg.Signals:
			if !typed(s, r.cfg.Stdin) { // the command has had it already
				app.signal(s)
			}
		case <-ctx.Done():
			return app.stop(context.WithoutCancel(ctx), r.run.journal)
		case <-app.done:
			var exit *exec.ExitError
			if errors.As(app.err, &exit) {
				return &ExitError{Code: exitCode(exit)}
			}
			return app.err
		}
	}
}

// exitSignalled is what a shell adds to the number of the signal that ended a command.
const exitSignalled = 128

// exitCode is what a shell would say.
func exitCode(e *exec.ExitError) int {
	if code := e.ExitCode(); code >= 0 {
		return code
	}
	return exitSignalled + signalNumber(e)
}
