// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meltemi/meltemi/netio"
)

// diary notes what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, s)
}

func (d *diary) component(name string, startup, teardown time.Duration) Component {
	up := make(chan struct{})
	return Component{Name: name, Started: up, Run: func(ctx context.Context) error {
		d.note("start " + name)
		time.Sleep(startup) // fake time
		d.note("up " + name)
		close(up)
		<-ctx.Done()
		time.Sleep(teardown)
		d.note("down " + name)
		return ctx.Err()
	}}
}

func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var g Group
		g.Add(d.component("a", 2*time.Second, time.Second))
		g.Add(d.component("b", time.Second, 3*time.Second))
		g.Go("once", func(context.Context) error { d.note("once"); return nil })
		g.Add(d.component("c", time.Second, time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc(d.lines, func(s string) bool { return s == "once" })
		want := []string{"start a", "up a", "start b", "up b", "start c", "up c", "down c", "down b", "down a"}
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestFirstErrorWinsWithItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		var g Group
		boom := errors.New("boom")
		g.Add(d.component("a", 0, 0))
		g.Go("b", func(context.Context) error { time.Sleep(time.Second); return boom })
		g.Go("c", func(ctx context.Context) error { <-ctx.Done(); return errors.New("because of b") })
		err := g.Run(t.Context())
		if !errors.Is(err, boom) || err.Error() != "b: boom" {
			t.Errorf("got %v", err)
		}
		if last := d.lines[len(d.lines)-1]; last != "down a" {
			t.Errorf("a was not stopped: %v", d.lines)
		}
	})
}

func TestFailureWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		never := make(chan struct{})
		g.Go("early", func(context.Context) error { time.Sleep(time.Second); return errors.New("gone") })
		g.Add(Component{Name: "slow", Started: never, Run: func(ctx context.Context) error { <-ctx.Done(); return nil }})
		g.Go("unreached", func(context.Context) error { t.Error("started"); return nil })
		if err := g.Run(t.Context()); err == nil || err.Error() != "early: gone" {
			t.Errorf("got %v", err)
		}
	})
}

func TestEndWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		g.Add(Component{Name: "slow", Started: make(chan struct{}), Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Errorf("got %v", err)
		}
	})
}

func TestAllDoneEndsTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Group
		g.Go("a", func(context.Context) error { return nil })
		g.Add(Component{Name: "b", Started: make(chan struct{}), Run: func(context.Context) error { return nil }})
		if err := g.Run(t.Context()); err != nil {
			t.Errorf("got %v", err)
		}
		var none Group
		if err := none.Run(t.Context()); err != nil {
			t.Errorf("empty: %v", err)
		}
	})
}

func TestOverstayingIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var g Group
		g.Go("failing late", func(ctx context.Context) error { <-ctx.Done(); return errors.New("could not clean up") })
		g.Add(Component{Name: "stuck", Grace: time.Second, Run: func(context.Context) error { <-release; return nil }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := g.Run(ctx)
		if err == nil || !strings.Contains(err.Error(), "stuck: did not stop within 1s") || !strings.Contains(err.Error(), "failing late: could not clean up") {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}

func TestReady(t *testing.T) {
	var r Ready
	a, b := r.Need("configuration"), r.Need("certificates")
	done := r.Done()
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, nil)
	if rec.Code != 503 || !strings.Contains(rec.Body.String(), "waiting for configuration, certificates") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	a()
	a()
	if got := r.Missing(); !slices.Equal(got, []string{"certificates"}) {
		t.Errorf("missing %v", got)
	}
	b()
	<-done
	<-r.Done()
	rec = httptest.NewRecorder()
	r.ServeHTTP(rec, nil)
	if rec.Code != 200 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d Drain
		done, ok := d.Begin()
		if !ok || d.Active() != 1 {
			t.Fatal("not admitted")
		}
		go func() { time.Sleep(time.Minute); done(); done() }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 still under way") {
			t.Errorf("got %v", err)
		}
		if _, ok := d.Begin(); ok {
			t.Error("admitted while draining")
		}
		if err := d.Wait(t.Context()); err != nil || d.Active() != 0 {
			t.Errorf("got %v, %d active", err, d.Active())
		}
	})
}

func TestHeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal)
		insisted := make(chan struct{})
		ctx, stop := Heed(t.Context(), signals, slog.New(slog.DiscardHandler), func() { close(insisted) })
		signals <- os.Interrupt
		<-ctx.Done()
		signals <- os.Interrupt // to our whole group, after it was sent to us
		synctest.Wait()
		select {
		case <-insisted:
			t.Error("one wish was taken for two")
		default:
		}
		time.Sleep(200 * time.Millisecond) // fake time
		signals <- os.Interrupt
		<-insisted
		stop()
		stop()
		ctx, stop = Heed(t.Context(), signals, slog.New(slog.DiscardHandler), func() {})
		stop()
		<-ctx.Done()
	})
}

func TestAdmin(t *testing.T) {
	l, err := netio.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), netio.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a := &Admin{Listener: l}
	a.Handle("GET", "/hello", "says <hello>", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	a.Handle("POST", "/quitquitquit", "ends it", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	a.Handle("GET", "/hidden", "", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	base := "http://" + l.Addr().String()

	do := func(method, path, host string, header ...string) (int, string) {
		req, _ := http.NewRequestWithContext(ctx, method, base+path, nil)
		req.Host = host
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, body := do("GET", "/hello", ""); code != 200 || body != "hello" {
		t.Errorf("%d %s", code, body)
	}
	if code, body := do("GET", "/", "localhost:15000"); code != 200 || !strings.Contains(body, "says &lt;hello&gt;") || strings.Contains(body, "hidden") {
		t.Errorf("%d %s", code, body)
	}
	for name, c := range map[string]struct {
		method, path, host string
		header             []string
		want               int
	}{
		"rebinding":         {"GET", "/hello", "evil.example", nil, 403},
		"get of a change":   {"GET", "/quitquitquit", "", nil, 405},
		"unknown":           {"GET", "/nope", "", nil, 404},
		"change":            {"POST", "/quitquitquit", "", nil, 200},
		"from another site": {"POST", "/quitquitquit", "", []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, 403},
		"IPv6 host":         {"GET", "/hello", "[::1]:15000", nil, 200},
	} {
		if code, body := do(c.method, c.path, c.host, c.header...); code != c.want {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestAdminTellsWhoHasThePort(t *testing.T) {
	l, err := netio.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), netio.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := &Admin{Addr: netio.AddrPortOf(l.Addr())}
	var inUse *netio.InUseError
	if err := a.Run(t.Context()); !errors.As(err, &inUse) {
		t.Errorf("got %v", err)
	}
}
