// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/netio/memnet"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

// A rig is a Manager over a network in memory whose chains answer each line
// with their name, and "bye" when they are asked to drain.
type rig struct {
	*Manager
	net       *memnet.Network
	unmatched chan error
	opened    int
}

var (
	front  = netip.MustParseAddrPort("10.0.0.1:15001")
	client = netip.MustParseAddrPort("10.0.0.9:0")
)

func newRig(t *testing.T, drain time.Duration) *rig {
	t.Helper()
	r := &rig{net: memnet.New(), unmatched: make(chan error, 8)}
	r.Manager = New(Config{
		Serve: answer, Log: slog.New(slog.DiscardHandler), DrainTime: drain,
		Unmatched: func(_ *config.Listener, _ *filter.Conn, why error) { r.unmatched <- why },
		Listen: func(_ context.Context, addr netip.AddrPort, _ netio.SocketOptions) (net.Listener, error) {
			r.opened++
			return r.net.Listen(addr)
		},
	})
	t.Cleanup(func() { r.Close(0) })
	return r
}

func answer(conn net.Conn, facts *filter.Conn, tie *Tie) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-tie.Drain():
			_, _ = fmt.Fprintln(conn, "bye")
		case <-done:
		}
	}()
	in := bufio.NewScanner(conn)
	for in.Scan() {
		_, _ = fmt.Fprintln(conn, tie.Chain().Name, facts.Listener, facts.Local)
	}
}

func (r *rig) reconcile(t *testing.T, ls ...*config.Listener) {
	t.Helper()
	if err := r.Reconcile(t.Context(), &config.Snapshot{Listeners: ls}); err != nil {
		t.Fatal(err)
	}
}

type caller struct {
	net.Conn
	in *bufio.Scanner
}

func (r *rig) dial(t *testing.T, to netip.AddrPort) *caller {
	t.Helper()
	c, err := r.net.Dial(t.Context(), client, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &caller{c, bufio.NewScanner(c)}
}

func (c *caller) ask(t *testing.T) string {
	t.Helper()
	if _, err := fmt.Fprintln(c, "?"); err != nil {
		t.Fatal(err)
	}
	return c.line(t)
}

func (c *caller) line(t *testing.T) string {
	t.Helper()
	if !c.in.Scan() {
		t.Fatalf("the connection ended: %v", c.in.Err())
	}
	return c.in.Text()
}

func listener(name, addr string, chain *config.FilterChain) *config.Listener {
	return &config.Listener{Name: name, Bind: true, Addrs: []config.Address{{IP: netip.MustParseAddrPort(addr)}}, Default: chain}
}

// A chain whose HTTP settings change is succeeded by the one that would take the
// connection now: nobody has to come back for it.
func TestAConnectionMovesToTheChainThatSucceeds(t *testing.T) {
	r := newRig(t, time.Hour)
	http := func(name string, codec config.Codec) *config.FilterChain {
		return &config.FilterChain{Name: name, HTTP: &config.HTTP{Codec: codec}}
	}
	addr := netip.MustParseAddrPort("10.0.0.1:1")
	r.reconcile(t, listener("a", "10.0.0.1:1", http("one", config.CodecAuto)))
	c, idle := r.dial(t, addr), r.dial(t, addr)
	if got := c.ask(t) + idle.ask(t); strings.Count(got, "one a") != 2 {
		t.Fatal(got)
	}
	for _, name := range []string{"two", "three"} {
		r.reconcile(t, listener("a", "10.0.0.1:1", http(name, config.CodecAuto)))
		if got := c.ask(t); !strings.HasPrefix(got, name) {
			t.Errorf("%q, want %s", got, name)
		}
	}
	_ = idle.Close()
	// What was settled at the beginning cannot change under way.
	r.reconcile(t, listener("a", "10.0.0.1:1", http("four", config.CodecHTTP2)))
	if got := c.line(t); got != "bye" {
		t.Errorf("%q, want bye", got)
	}
	if got := r.dial(t, addr).ask(t); !strings.HasPrefix(got, "four") {
		t.Error(got)
	}
	r.Close(0)
	if n := len(r.lives); n != 0 {
		t.Errorf("%d chains are remembered", n)
	}
}

func TestAChangeDrainsWhatItConcernsAlone(t *testing.T) {
	r := newRig(t, time.Hour)
	one, two, three := &config.FilterChain{Name: "one"}, &config.FilterChain{Name: "two"}, &config.FilterChain{Name: "three"}
	a, b := listener("a", "10.0.0.1:1", one), listener("b", "10.0.0.1:2", two)
	r.reconcile(t, a, b)
	first, second := r.dial(t, a.Addrs[0].IP), r.dial(t, b.Addrs[0].IP)
	if got := first.ask(t) + second.ask(t); !strings.Contains(got, "one a") || !strings.Contains(got, "two b") {
		t.Fatal(got)
	}
	// b's chain changes, its socket does not; a is a new value with the same chain.
	r.reconcile(t, listener("a", "10.0.0.1:1", one), listener("b", "10.0.0.1:2", three))
	if got := second.line(t); got != "bye" {
		t.Errorf("the connection of the chain that went heard %q", got)
	}
	if got := second.ask(t); !strings.HasPrefix(got, "two") {
		t.Errorf("it must go on until the drain time is over: %q", got)
	}
	if got := first.ask(t); !strings.HasPrefix(got, "one") {
		t.Errorf("the other connection: %q", got)
	}
	if got := r.dial(t, b.Addrs[0].IP).ask(t); !strings.HasPrefix(got, "three") {
		t.Errorf("a new connection: %q", got)
	}
	// a goes: its port closes, its connection is asked to end.
	r.reconcile(t, listener("b", "10.0.0.1:2", three))
	if got := first.line(t); got != "bye" {
		t.Errorf("heard %q", got)
	}
	if _, err := r.net.Dial(t.Context(), client, a.Addrs[0].IP); err == nil {
		t.Error("the port of a listener that is gone is still open")
	}
}

func TestDrainTimeEndsConnections(t *testing.T) {
	r := newRig(t, time.Millisecond)
	l := listener("a", "10.0.0.1:1", &config.FilterChain{Name: "one"})
	r.reconcile(t, l)
	c := r.dial(t, l.Addrs[0].IP)
	c.ask(t)
	r.reconcile(t)
	for c.in.Scan() { // "bye", then the end
	}
	if err := c.in.Err(); errors.Is(err, context.DeadlineExceeded) {
		t.Error("the connection outlived the drain time")
	}
}

func TestHandOff(t *testing.T) {
	r := newRig(t, time.Hour)
	virtual := listener("virtual", front.String(), &config.FilterChain{Name: "rest"})
	virtual.HandOff, virtual.OriginalDst = true, true
	exact := listener("exact", "10.1.0.7:80", &config.FilterChain{Name: "exact"})
	port := listener("port", "0.0.0.0:80", &config.FilterChain{Name: "port"})
	exact.Bind, port.Bind = false, false
	r.net.Divert(func(src, dst netip.AddrPort) bool { return dst != front }, front)
	r.reconcile(t, virtual, exact, port)
	for to, want := range map[string]string{
		"10.1.0.7:80": "exact exact 10.1.0.7:80", "10.1.0.8:80": "port port 10.1.0.8:80", "10.1.0.8:81": "rest virtual 10.1.0.8:81",
	} {
		if got := r.dial(t, netip.MustParseAddrPort(to)).ask(t); got != want {
			t.Errorf("to %s: %q, want %q", to, got, want)
		}
	}
}

func TestNobodyTakesIt(t *testing.T) {
	r := newRig(t, time.Hour)
	l := listener("a", "10.0.0.1:1", nil)
	r.reconcile(t, l)
	c := r.dial(t, l.Addrs[0].IP)
	if why := <-r.unmatched; !errors.Is(why, ErrNoChain) {
		t.Errorf("%v, want ErrNoChain", why)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection must be closed")
	}
}

// A server that speaks first must not wait for a client that never will.
func TestServerFirst(t *testing.T) {
	r := newRig(t, time.Hour)
	l := listener("a", "10.0.0.1:1", &config.FilterChain{Name: "tcp"})
	l.TLSInspector, l.HTTPInspector = &config.Inspector{}, &config.Inspector{}
	l.InspectTimeout, l.ContinueOnTimeout = time.Millisecond, true
	greeted := make(chan struct{})
	r.cfg.Serve = func(conn net.Conn, _ *filter.Conn, _ *Tie) {
		_, _ = io.WriteString(conn, "220 ready\n")
		close(greeted)
	}
	r.reconcile(t, l)
	if got := r.dial(t, l.Addrs[0].IP).line(t); got != "220 ready" {
		t.Error(got)
	}
	<-greeted
	// Without permission to go on, a silent client is closed.
	strict := listener("b", "10.0.0.1:2", &config.FilterChain{Name: "tcp"})
	strict.HTTPInspector, strict.InspectTimeout = &config.Inspector{}, time.Millisecond
	r.reconcile(t, l, strict)
	r.dial(t, strict.Addrs[0].IP)
	if why := <-r.unmatched; !errors.Is(why, ErrSilent) {
		t.Errorf("%v, want ErrSilent", why)
	}
}

func TestADefectEndsOneConnectionAlone(t *testing.T) {
	r := newRig(t, time.Hour)
	l := listener("a", "10.0.0.1:1", &config.FilterChain{Name: "one"})
	bad := true
	r.cfg.Serve = func(conn net.Conn, f *filter.Conn, tie *Tie) {
		if bad {
			bad = false
			panic("defect")
		}
		answer(conn, f, tie)
	}
	r.reconcile(t, l)
	if _, err := r.dial(t, l.Addrs[0].IP).Read(make([]byte, 1)); err == nil {
		t.Error("want the connection closed")
	}
	if got := r.dial(t, l.Addrs[0].IP).ask(t); !strings.HasPrefix(got, "one") {
		t.Error(got)
	}
}

// A handler that does not end with its connection is left behind, and named.
func TestCloseDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, time.Hour)
		var log strings.Builder
		r.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		end := make(chan struct{})
		r.cfg.Serve = func(net.Conn, *filter.Conn, *Tie) { <-end }
		l := listener("deaf", "10.0.0.1:1", &config.FilterChain{Name: "one"})
		r.reconcile(t, l)
		_, _ = fmt.Fprintln(r.dial(t, l.Addrs[0].IP), "?")
		synctest.Wait()
		closed := make(chan struct{})
		go func() {
			r.Close(time.Second)
			close(closed)
		}()
		select {
		case <-closed:
			if got := log.String(); !strings.Contains(got, "connections=1") || !strings.Contains(got, "map[deaf:1]") {
				t.Errorf("the log does not tell what was left: %q", got)
			}
		case <-time.After(time.Minute):
			t.Error("Close waits for a handler that does not end")
		}
		close(end)
		synctest.Wait()
	})
}

func TestMaxConns(t *testing.T) {
	r := newRig(t, time.Hour)
	r.cfg.MaxConns = 1
	l := listener("a", "10.0.0.1:1", &config.FilterChain{Name: "one"})
	r.reconcile(t, l)
	first := r.dial(t, l.Addrs[0].IP)
	first.ask(t)
	if _, err := r.dial(t, l.Addrs[0].IP).Read(make([]byte, 1)); err == nil {
		t.Error("one connection too many must be closed")
	}
	first.ask(t)
}

func TestATakenPortIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	m := New(Config{Serve: answer, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { m.Close(0) })
	free := listener("free", "127.0.0.1:0", &config.FilterChain{Name: "free"})
	err = m.Reconcile(t.Context(), &config.Snapshot{Listeners: []*config.Listener{listener("busy", taken.Addr().String(), nil), free}})
	var inUse *netio.InUseError
	if !errors.As(err, &inUse) || !strings.Contains(err.Error(), "listener busy") {
		t.Errorf("%v, want who has the port", err)
	}
	if len(m.Addrs("free")) != 1 {
		t.Error("one listener that cannot be opened must not keep another from serving")
	}
	if got := m.Unopened(); len(got) != 1 || !errors.As(got["busy"], &inUse) {
		t.Errorf("not open are %v, want busy alone", got)
	}
	_ = taken.Close()
	if err := m.Reconcile(t.Context(), &config.Snapshot{Listeners: []*config.Listener{listener("busy", taken.Addr().String(), nil), free}}); err != nil || len(m.Unopened()) != 0 {
		t.Errorf("the port is free: %v, not open are %v", err, m.Unopened())
	}
}

// A port whose listener changes its name is never closed.
func TestAPortIsHandedOver(t *testing.T) {
	r := newRig(t, time.Hour)
	chain := func(name string) *config.FilterChain { return &config.FilterChain{Name: name} }
	one, two := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.1:2")
	answers := func(to netip.AddrPort, want string) {
		t.Helper()
		if got := r.dial(t, to).ask(t); !strings.HasPrefix(got, want) {
			t.Errorf("%s answers %q, want %s", to, got, want)
		}
	}
	r.reconcile(t, listener("old", one.String(), chain("before")))
	answers(one, "before old")
	opened := r.opened
	r.reconcile(t, listener("new", one.String(), chain("after")))
	answers(one, "after new")
	if r.opened != opened || len(r.Addrs("old")) != 0 || len(r.Addrs("new")) != 1 {
		t.Errorf("opened %d more, old at %v, new at %v", r.opened-opened, r.Addrs("old"), r.Addrs("new"))
	}
	// Two that change places, also under the same names.
	r.reconcile(t, listener("new", one.String(), chain("x")), listener("other", two.String(), chain("y")))
	opened = r.opened
	r.reconcile(t, listener("new", two.String(), chain("x")), listener("other", one.String(), chain("y")))
	answers(one, "y other")
	answers(two, "x new")
	if r.opened != opened {
		t.Errorf("%d were opened to change places", r.opened-opened)
	}
	r.reconcile(t)
	if c, err := r.net.Dial(t.Context(), client, one); err == nil {
		_ = c.Close()
		t.Error("a port that nobody wants is open")
	}
}

// Who cannot have what is new keeps what there was, until another one wants it.
func TestAMoveThatFailsLosesNothing(t *testing.T) {
	r := newRig(t, time.Hour)
	home, taken := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.1:2")
	stranger, err := r.net.Listen(taken)
	if err != nil {
		t.Fatal(err)
	}
	stays, moves := &config.FilterChain{Name: "stays"}, listener("a", taken.String(), &config.FilterChain{Name: "moves"})
	r.reconcile(t, listener("a", home.String(), stays))
	open := r.dial(t, home)
	open.ask(t)
	fails := func(ls ...*config.Listener) string {
		t.Helper()
		if err := r.Reconcile(t.Context(), &config.Snapshot{Listeners: ls}); err == nil {
			t.Fatal("the port is not taken")
		}
		return r.Unopened()["a"].Error()
	}
	for range 2 {
		if why := fails(moves); !strings.Contains(why, "listens on 10.0.0.1:1 as before") {
			t.Errorf("not open because %s", why)
		}
		for _, c := range []*caller{r.dial(t, home), open} {
			if got := c.ask(t); !strings.HasPrefix(got, "stays a") {
				t.Errorf("%q, want what was there before", got)
			}
		}
	}
	if why := fails(moves, listener("b", home.String(), &config.FilterChain{Name: "heir"})); strings.Contains(why, "as before") {
		t.Errorf("not open because %s", why)
	}
	if got := r.dial(t, home).ask(t); !strings.HasPrefix(got, "heir b") || len(r.Addrs("a")) != 0 {
		t.Errorf("%q, and a is at %v", got, r.Addrs("a"))
	}
	_ = stranger.Close()
	r.reconcile(t, moves)
	if got := r.dial(t, taken).ask(t); !strings.HasPrefix(got, "moves a") {
		t.Errorf("%q, want the one that moved", got)
	}
}

// A listener whose move failed, and which lost a port to another one meanwhile, opens that port again when it is to be as it was.
func TestAPortThatWasHandedOverIsOpenedAgain(t *testing.T) {
	r := newRig(t, time.Hour)
	chain := &config.FilterChain{Name: "c"}
	at := func(port uint16) config.Address { return config.Address{IP: netip.AddrPortFrom(front.Addr(), port)} }
	two := func(a, b uint16) *config.Listener {
		return &config.Listener{Name: "a", Bind: true, Addrs: []config.Address{at(a), at(b)}, Default: chain}
	}
	heir := listener("b", at(1).String(), chain)
	if _, err := r.net.Listen(at(3).IP); err != nil {
		t.Fatal(err)
	}
	r.reconcile(t, two(1, 2))
	if err := r.Reconcile(t.Context(), &config.Snapshot{Listeners: []*config.Listener{two(2, 3), heir}}); err == nil {
		t.Fatal("port 3 is not taken")
	}
	// As long as the other one has the port, that is said.
	if err := r.Reconcile(t.Context(), &config.Snapshot{Listeners: []*config.Listener{two(1, 2), heir}}); err == nil || r.Unopened()["a"] == nil {
		t.Errorf("%v, not open are %v; want a", err, r.Unopened())
	}
	opened := r.opened
	r.reconcile(t, two(1, 2))
	for _, port := range []uint16{1, 2} {
		if got := r.dial(t, at(port).IP).ask(t); !strings.HasPrefix(got, "c a") {
			t.Errorf("port %d answers %q", port, got)
		}
	}
	if n := len(r.Addrs("a")); n != 2 || r.opened != opened {
		t.Errorf("%d ports, %d opened; want 2, and the other's handed back", n, r.opened-opened)
	}
	// With nobody to hand it back, it is opened.
	_ = r.Reconcile(t.Context(), &config.Snapshot{Listeners: []*config.Listener{two(2, 3), heir}})
	_ = r.Reconcile(t.Context(), &config.Snapshot{Listeners: []*config.Listener{two(2, 3)}})
	r.reconcile(t, two(1, 2))
	if got := r.dial(t, at(1).IP).ask(t); !strings.HasPrefix(got, "c a") {
		t.Errorf("port 1 answers %q", got)
	}
}

// What was drained does not listen again: not when a move that failed is tried again, nor when listeners come or change.
// A connection that had not told its protocol yet is asked to end with the others.
func TestWhatWasDrainedStaysClosed(t *testing.T) {
	r := newRig(t, time.Hour)
	var log strings.Builder
	r.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(front.Addr(), port) }
	in := func(name string, port uint16, chain string) *config.Listener {
		l := listener(name, at(port).String(), &config.FilterChain{Name: chain})
		l.Direction = filter.Inbound
		return l
	}
	stranger, err := r.net.Listen(at(2))
	if err != nil {
		t.Fatal(err)
	}
	moves, out := in("a", 2, "moves"), listener("out", at(4).String(), &config.FilterChain{Name: "out"})
	slow := in("slow", 5, "slow")
	slow.HTTPInspector, slow.ContinueOnTimeout = &config.Inspector{}, true // InspectTimeout 0: no limit
	r.reconcile(t, in("a", 1, "stays"), slow, out)
	_ = r.Reconcile(t.Context(), &config.Snapshot{Listeners: []*config.Listener{moves, slow, out}})
	if r.Unopened()["a"] == nil {
		t.Fatal("port 2 is not taken")
	}
	silent := r.dial(t, at(5))
	for r.Active() == 0 {
		runtime.Gosched()
	}
	closed := func(ports ...uint16) {
		t.Helper()
		for _, port := range ports {
			if c, err := r.net.Dial(t.Context(), client, at(port)); err == nil {
				_ = c.Close()
				t.Errorf("port %d is open", port)
			}
		}
	}
	r.Drain(true)
	_, _ = io.WriteString(silent, "GET / HTTP/1.1\r\n")
	if got := silent.line(t) + silent.line(t); !strings.Contains(got, "bye") {
		t.Errorf("who spoke after the drain heard %q", got)
	}
	_ = stranger.Close()
	r.reconcile(t, moves, slow, out)
	closed(1, 2, 5)
	r.reconcile(t, moves, slow, out, in("b", 3, "new"))
	r.reconcile(t, moves, slow, out, in("b", 3, "newer"))
	closed(2, 3, 5)
	if got := log.String(); strings.Count(got, "listener=a") != 1 || strings.Count(got, "listener=b") != 1 || len(r.Unopened()) != 0 {
		t.Errorf("each must be said once, and is no error: %s, %v", got, r.Unopened())
	}
	if got := r.dial(t, at(4)).ask(t); !strings.HasPrefix(got, "out") {
		t.Errorf("what was not drained answers %q", got)
	}
	// One that becomes inbound is drained as well, one that no longer is may open.
	turned := in("out", 4, "turned")
	back := listener("b", at(3).String(), &config.FilterChain{Name: "back"})
	r.reconcile(t, back, turned)
	closed(4)
	if got := r.dial(t, at(3)).ask(t); !strings.HasPrefix(got, "back") {
		t.Errorf("%q", got)
	}
	r.Drain(false)
	r.reconcile(t, back, listener("c", at(6).String(), &config.FilterChain{Name: "c"}))
	closed(3, 6)
}

// All addresses of a port and one of them exclude each other: the old one is closed first, and opened again if that was for nothing.
func TestOverlappingAddresses(t *testing.T) {
	fail := false
	m := New(Config{Serve: answer, Log: slog.New(slog.DiscardHandler), Listen: func(ctx context.Context, addr netip.AddrPort, opt netio.SocketOptions) (net.Listener, error) {
		if fail && addr.Addr().IsLoopback() {
			return nil, errors.New("no such address")
		}
		return netio.Listen(ctx, addr, opt)
	}})
	t.Cleanup(func() { m.Close(0) })
	at := func(addr string) error {
		return m.Reconcile(t.Context(), &config.Snapshot{Listeners: []*config.Listener{listener("l", addr, &config.FilterChain{Name: "c"})}})
	}
	if err := at("0.0.0.0:0"); err != nil {
		t.Fatal(err)
	}
	all := m.Addrs("l")[0].String()
	one := strings.Replace(all, "0.0.0.0", "127.0.0.1", 1)
	for _, fail = range []bool{true, false} {
		err, want := at(one), one
		if fail {
			want = all
		}
		if got := fmt.Sprint(m.Addrs("l")); (err != nil) != fail || got != "["+want+"]" {
			t.Errorf("%v, open is %v, want %s", err, got, want)
		}
		if c, err := net.Dial("tcp", one); err != nil {
			t.Error(err)
		} else {
			_ = c.Close()
		}
	}
}

// Clients open connections in advance. Where only the client can speak first they are
// waited for without limit, but not when the proxy is to end.
func TestSilentClientsMayWaitAndDoNotHoldUpTheEnd(t *testing.T) {
	r := newRig(t, time.Hour)
	l := listener("a", "10.0.0.1:1", &config.FilterChain{Name: "rest"})
	l.HTTPInspector, l.ContinueOnTimeout = &config.Inspector{}, true // InspectTimeout 0: no limit
	r.reconcile(t, l)
	c := r.dial(t, l.Addrs[0].IP)
	for r.Active() == 0 {
		runtime.Gosched()
	}
	ended := make(chan struct{})
	go func() {
		r.Close(time.Hour)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("a silent client holds up the end")
	}
	if c.in.Scan() {
		t.Errorf("the client was told %q", c.in.Text())
	}
}

// Whoever hangs up without a word had nothing to say to anybody.
func TestHangingUpInSilence(t *testing.T) {
	r := newRig(t, time.Hour)
	l := listener("a", "10.0.0.1:1", &config.FilterChain{Name: "rest"})
	l.HTTPInspector, l.ContinueOnTimeout = &config.Inspector{}, true
	r.reconcile(t, l)
	if err := r.dial(t, l.Addrs[0].IP).Close(); err != nil {
		t.Fatal(err)
	}
	if why := <-r.unmatched; !errors.Is(why, ErrSilent) {
		t.Errorf("%v, want ErrSilent", why)
	}
}

func TestAwait(t *testing.T) {
	l := &config.Listener{HTTPInspector: &config.Inspector{}, InspectTimeout: time.Nanosecond, ContinueOnTimeout: true}
	for name, c := range map[string]struct {
		say   string
		drain bool
		proto []string
		err   error
	}{
		"speaks": {say: "GET / HTTP/1.1\r\n\r\n", proto: []string{"http/1.1"}}, "drained": {drain: true, err: ErrSilent},
	} {
		client, server := net.Pipe()
		drain := make(chan struct{})
		if c.drain {
			close(drain)
		} else {
			go func() { _, _ = io.WriteString(client, c.say) }()
		}
		seen, err := Await(netio.NewPeeked(server), l, &filter.Conn{}, drain)
		if !errors.Is(err, c.err) || !slices.Equal(seen.Protocols, c.proto) {
			t.Errorf("%s: %+v, %v", name, seen, err)
		}
		_, _ = client.Close(), server.Close()
	}
}
