// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/meltemi/meltemi/daemon"
	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/local/view"
	"github.com/meltemi/meltemi/local/watch"
	"github.com/meltemi/meltemi/netio/freeport"
	"github.com/meltemi/meltemi/samples/bookshop"
)

const (
	rootFile = "root-cert.pem" // in the runtime folder
	pagePath = "/productpage"
	// restartPause is how long a dead member is shown dead before it is started again.
	restartPause = 2 * time.Second
	// reportEvery is how often lines report traffic.
	reportEvery = 10 * time.Second
)

// A running mesh.
type up struct {
	cfg     UpConfig
	began   time.Time
	folder  folder
	ports   *freeport.Pool
	journal *made.Journal
	face    view.Face
	watcher *watch.Watcher
	crew    *crew
	capture *captured // nil without capture
	mesh    Mesh
	sample  bool // the configuration is the sample's
	checked bool // all checks have passed

	mu    sync.Mutex
	units []*unit
}

// Up runs a mesh until ctx ends, then takes down all it made. With Check it ends by itself, with an
// error if a check failed. After ErrInsisted it is still at work: the program should end.
func Up(ctx context.Context, cfg UpConfig) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	u := &up{cfg: cfg, began: time.Now()}
	var err error
	if u.folder, err = openFolder(cfg.Dir); err != nil {
		return err
	}
	lock, err := u.folder.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if u.journal, err = made.Open(u.folder.made()); err != nil {
		return err
	}
	u.ports = u.folder.ports()
	defer u.ports.Release()
	u.face = newFace(cfg)
	lived := make(chan error, 1)
	go func() { lived <- u.live(ctx) }()
	select {
	case err := <-lived:
		return err
	case <-cfg.Insist:
		u.face.Close()
		u.journal.Kill()
		return ErrInsisted
	}
}

// ErrNotChecked is why Up with Check fails that was ended before all was checked.
var ErrNotChecked = errors.New("ended before everything was checked")

// ErrInsisted is why Up left things behind.
var ErrInsisted = errors.New("ended at once: all processes are killed; the next \"meltemi up\" on this state folder removes the rest")

func newFace(cfg UpConfig) view.Face {
	if t := cfg.Terminal; !cfg.Plain && !cfg.Check && t != nil && view.Drawable(t) {
		return view.NewScreen(t, !cfg.NoColor, cfg.TerminalEnv)
	}
	return view.NewLines(cfg.Out, reportEvery)
}

// live is Up's whole life.
func (u *up) live(ctx context.Context) error {
	if err := u.folder.clean(ctx, u.journal); err != nil {
		return fmt.Errorf("cleaning up what an earlier mesh left behind: %w", err)
	}
	if err := u.folder.sweepServices(); err != nil {
		return err
	}
	err := u.prepare(ctx)
	if err == nil {
		err = u.run(ctx)
	}
	if err == nil && u.cfg.Check && !u.checked {
		err = ErrNotChecked
	}
	// Taking down is not interrupted by what ended the rest.
	undone := errors.Join(u.journal.Undo(context.WithoutCancel(ctx)), u.folder.sweepServices())
	if undone == nil {
		rest := ""
		if n := u.folder.livingRuns(); n > 0 {
			rest = fmt.Sprintf("; what \"meltemi run\" has started (%d) goes on, and joins the next mesh", n)
			if u.capture != nil {
				rest = fmt.Sprintf("; what \"meltemi run\" has started (%d) ends now, too", n)
			}
		}
		_, _ = fmt.Fprintln(u.cfg.Out, "all that was made is removed"+rest)
	}
	return errors.Join(err, undone)
}

// show shows a picture, with files as people are told of them.
func (u *up) show(p watch.Picture) {
	for i := range p.Problems {
		if file := &p.Problems[i].File; *file != "" {
			*file = shown(*file)
		}
	}
	u.face.Show(p)
}

// shown is how people are told of files: from where they are.
func shown(paths ...string) string {
	here, err := os.Getwd()
	var names []string
	for _, p := range paths {
		if rel, relErr := filepath.Rel(here, p); err == nil && relErr == nil && filepath.IsLocal(rel) {
			p = rel
		}
		names = append(names, p)
	}
	return strings.Join(names, ", ")
}

func (u *up) say(bad bool, format string, args ...any) {
	u.face.Say(view.Event{At: time.Now(), Text: fmt.Sprintf(format, args...), Bad: bad})
}

// run starts everything in order, and returns when it has stopped in reverse.
func (u *up) run(ctx context.Context) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if !u.cfg.Check {
		defer context.AfterFunc(ctx, func() { u.say(false, "ending; to be asked once more ends at once") })()
	}
	g := daemon.Group{Log: u.cfg.Log, Grace: 2 * made.Patience}
	g.Go("view", func(ctx context.Context) error { return u.face.Run(ctx, quit) })
	controlUp, membersUp := make(chan struct{}), make(chan struct{})
	g.Add(daemon.Component{Name: "control plane", Started: controlUp, Run: func(ctx context.Context) error { return u.runControl(ctx, controlUp) }})
	if u.capture != nil {
		g.Go("resolver", u.runResolver)
	}
	g.Add(daemon.Component{Name: "members", Started: membersUp, Grace: 4 * made.Patience, Run: func(ctx context.Context) error { return u.runMembers(ctx, membersUp) }})
	g.Go("runs", u.watchRuns)
	g.Go("watch", func(ctx context.Context) error { return u.watcher.Run(ctx, u.show) })
	if u.cfg.Check {
		g.Go("check", func(ctx context.Context) error {
			defer quit()
			err := u.runChecks(ctx)
			if ctx.Err() != nil {
				return nil // what failed says nothing; ErrNotChecked does
			}
			u.checked = err == nil
			return err
		})
	} else {
		g.Go("traffic", u.runTraffic)
	}
	if u.cfg.For > 0 {
		g.Go("time", func(ctx context.Context) error {
			t := time.NewTimer(u.cfg.For)
			defer t.Stop()
			select {
			case <-t.C:
				quit()
			case <-ctx.Done():
			}
			return nil
		})
	}
	return g.Run(ctx)
}

// runsEvery is how often Runs are looked after.
const runsEvery = 2 * time.Second

// watchRuns takes from the mesh what a Run left there that was killed.
func (u *up) watchRuns(ctx context.Context) error {
	tick := time.NewTicker(runsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n, err := u.folder.cleanRuns(context.WithoutCancel(ctx))
		if n > 0 {
			err = errors.Join(err, u.folder.sweepServices())
		}
		switch {
		case err != nil:
			u.say(true, "what a killed \"meltemi run\" left behind cannot be removed, and it is tried again: %s", err)
		case n > 0:
			u.say(true, "a \"meltemi run\" was killed (%d); what it left behind is removed", n)
		}
	}
}

// A control plane that ends is started again after a pause, which doubles while it ends before it has lived for controlLives.
const (
	controlPause     = 100 * time.Millisecond
	controlPauseMost = 5 * time.Second
	controlLives     = 10 * time.Second
)

// runControl keeps a control plane running.
func (u *up) runControl(ctx context.Context, started chan<- struct{}) error {
	listen := []string{loopback(u.cfg.XDS).String()}
	if u.capture != nil {
		listen = append(listen, u.crew.control)
	}
	c := command{
		name:    "control plane",
		program: u.cfg.Program,
		args:    controlArgs(u.folder.state(), u.mesh.Paths, listen, loopback(u.cfg.Monitoring).String(), servingNames(listen)),
		log:     u.folder.log("control"),
	}
	if u.cfg.HTTP10 {
		c.args = append(c.args, "--http10")
	}
	_ = os.Remove(c.log)
	p, err := start(u.journal, c)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, u.cfg.StartTimeout)
	err = poll(wait, func() error {
		if !p.alive() {
			return stopPolling{fmt.Errorf("it ended: %s", p.ended())}
		}
		return getOK(wait, &http.Client{Timeout: time.Second}, u.mesh.Monitoring+"/ready")
	})
	cancel()
	if ctx.Err() != nil {
		return p.stop(context.WithoutCancel(ctx), u.journal)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("not ready: %w%s", err, u.folder.tail("control")), p.stop(context.WithoutCancel(ctx), u.journal))
	}
	close(started)
	pause := controlPause
	for began := time.Now(); ; began = time.Now() {
		select {
		case <-ctx.Done():
			return p.stop(context.WithoutCancel(ctx), u.journal)
		case <-p.done:
		}
		if time.Since(began) >= controlLives {
			pause = controlPause
		}
		u.say(true, "control plane: %s; it is started again, traffic goes on meanwhile", p.ended())
		for {
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return nil
			}
			pause = min(2*pause, controlPauseMost)
			next, err := start(u.journal, c)
			if err == nil {
				p = next
				break
			}
			u.say(true, "control plane: %s; it is tried again", err)
		}
	}
}

// servingNames are the addresses that the control plane's certificate must name.
func servingNames(listen []string) []string {
	var names []string
	for _, l := range listen {
		if host, _, err := net.SplitHostPort(l); err == nil {
			names = append(names, host)
		}
	}
	return names
}

// runMembers brings everybody in, keeps them running, and takes them out together.
func (u *up) runMembers(ctx context.Context, started chan<- struct{}) error {
	err := u.startMembers(ctx)
	if err == nil {
		close(started)
		u.ready()
		pause := restartPause
		if u.cfg.Check {
			pause = 0 // a check must be able to notice
		}
		var wg sync.WaitGroup
		for _, x := range u.units {
			wg.Go(func() { x.keep(ctx, pause) })
		}
		wg.Wait()
		<-ctx.Done()
	} else if ctx.Err() != nil {
		err = nil // asked to end while starting
	}
	end := context.WithoutCancel(ctx)
	errs := make([]error, len(u.units))
	var wg sync.WaitGroup
	for i, x := range u.units {
		wg.Go(func() { errs[i] = x.leave(end) })
	}
	wg.Wait()
	return errors.Join(append(errs, err)...)
}

func (u *up) startMembers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.StartTimeout)
	defer cancel()
	for _, w := range bookshop.Workloads() {
		m := newMember("default", w.Service, w.Version, w.Account)
		if u.capture != nil {
			m.App = loopback(bookshop.Port) // the port alone counts
		}
		m.Port = bookshop.Port
		if err := u.crew.declare(&m, u.cfg.Paths); err != nil { // for configuration that holds routes alone
			return err
		}
		x, err := u.crew.enter(ctx, &m, command{})
		if err != nil {
			return err
		}
		x.app = u.sampleApp(&m, w.Version)
		u.add(x)
	}
	gateway := gatewayMember()
	x, err := u.crew.enter(ctx, &gateway, command{})
	if err != nil {
		return err
	}
	u.add(x)
	for _, x := range u.units {
		if err := errors.Join(x.startProxy(), x.startApp()); err != nil {
			return err
		}
	}
	for _, x := range u.units {
		if err := x.awaitReady(ctx); err != nil {
			return err
		}
		u.watcher.Add(x.target())
	}
	if !u.sample {
		return nil // whose configuration may serve another page, or none
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	if err := poll(ctx, func() error { return getOK(ctx, client, u.mesh.Page+pagePath) }); err != nil {
		return fmt.Errorf("the page does not come: %w", err)
	}
	return nil
}

func (u *up) add(x *unit) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.units = append(u.units, x)
}

// sampleApp is how a service of the sample is started.
func (u *up) sampleApp(m *Member, version string) command {
	c := command{
		name:    m.ID(),
		program: u.cfg.Program,
		args:    bookshopArgs(m, version),
		log:     u.folder.log(m.ID()),
	}
	if u.capture != nil {
		c.user = &nobodyUser
	}
	return c
}

func (u *up) ready() {
	u.say(false, "ready in %.1f s: %s", time.Since(u.began).Seconds(), u.mesh.Page+pagePath)
	if u.sample && !u.cfg.Check {
		u.say(false, "edit %s, save, and watch the traffic shift", filepath.Join(u.cfg.Sample, "reviews.yaml"))
	}
}
