// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
)

func TestOldConnectionsAreRetired(t *testing.T) {
	for _, protocol := range []Protocol{HTTP1, HTTP2} {
		o := newOrigin(t, nil)
		c, h := toOrigin(t, o.addr(), func(s *Spec) { s.Protocol, s.MaxConnDuration = protocol, time.Hour })
		roundTrip(t, c, h, &Request{})
		h.pool.sweep(time.Now().Add(59 * time.Minute))
		roundTrip(t, c, h, &Request{})
		if n := o.count(); n != 1 {
			t.Fatalf("protocol %d: %d connections before the hour, want 1", protocol, n)
		}
		busy := mustOpen(t, c, h, &Request{})
		h.pool.sweep(time.Now().Add(time.Hour))
		if _, err := exchange(busy, "/"); err != nil {
			t.Errorf("protocol %d: an exchange under way: %v", protocol, err)
		}
		busy.Done(Outcome{Status: 200, Reusable: true})
		h.pool.sweep(time.Now().Add(time.Hour))
		roundTrip(t, c, h, &Request{})
		if n := o.count(); n != 2 || c.stats.ConnAgeRetired.Load() != 1 {
			t.Errorf("protocol %d: %d connections, %d retired; want 2 and 1", protocol, n, c.stats.ConnAgeRetired.Load())
		}
	}
}

func TestOldConnectionIsNotTaken(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), func(s *Spec) { s.MaxConnDuration = time.Hour })
	roundTrip(t, c, h, &Request{})
	c.now = func() time.Time { return time.Now().Add(time.Hour) }
	roundTrip(t, c, h, &Request{})
	if n := o.count(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// A server that has gone silent is found out by a PING.
func TestSilentConnectionIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // SETTINGS, and then nothing
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
	c, h := toOrigin(t, netip.MustParseAddrPort(l.Addr().String()), func(s *Spec) {
		s.Protocol, s.PingAfter, s.PingTimeout = HTTP2, 20*time.Millisecond, 20*time.Millisecond
	})
	lease := mustOpen(t, c, h, &Request{})
	_, err = exchange(lease, "/")
	if f := lease.Fault(err); err == nil || f.Kind != fault.ConnectionClosed {
		t.Errorf("%v, fault %+v", err, f)
	}
	lease.Done(Outcome{Fault: lease.Fault(err)})
}

func TestBytesAreCounted(t *testing.T) {
	const asked = "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n"
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), nil)
	for range 3 {
		roundTrip(t, c, h, &Request{})
	}
	in, out := c.stats.BytesIn.Load(), c.stats.BytesOut.Load()
	if out != 3*int64(len(asked)) || in < 3*int64(len("HTTP/1.1 200 OK\r\n\r\n/x")) || in%3 != 0 {
		t.Errorf("HTTP/1: %d bytes in, %d out", in, out)
	}
	c, h = toOrigin(t, o.addr(), func(s *Spec) { s.Protocol = HTTP2 })
	roundTrip(t, c, h, &Request{})
	within(t, "bytes both ways while the connection lives", func() bool { // what is written is counted after it was
		h.pool.sweep(time.Now())
		in, out = c.stats.BytesIn.Load(), c.stats.BytesOut.Load()
		return in > 0 && out > 0
	})
	roundTrip(t, c, h, &Request{})
	h.pool.drain()
	within(t, "the connection's end", func() bool { return c.stats.ConnActive.Load() == 0 })
	if c.stats.BytesIn.Load() <= in || c.stats.BytesOut.Load() <= out {
		t.Error("HTTP/2: nothing more at the connection's end")
	}
}

// What closes a plaintext connection has nothing to do with TLS.
func TestPlainCloseHasNoHintOfTLS(t *testing.T) {
	o := newOrigin(t, nil)
	c, h := toOrigin(t, o.addr(), nil)
	l := mustOpen(t, c, h, &Request{})
	for _, err := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if f := l.Fault(err); f.Kind != fault.ConnectionClosed || strings.Contains(f.Hint, "handshake") || strings.Contains(f.Hint, "TLS") {
			t.Errorf("%v: %+v", err, f)
		}
	}
	l.Done(Outcome{})
}

// A TLS 1.3 server refuses our certificate only when we think all is well.
func TestLateAlertIsExplained(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}
	l := &Lease{host: &Host{}, cluster: &Cluster{spec: &Spec{}}, tls: &tls.ConnectionState{}}
	if f := l.Fault(alert); !strings.Contains(f.Hint, "client certificate") {
		t.Errorf("%+v", f)
	}
	if f := l.Fault(io.EOF); f.Hint != "" {
		t.Errorf("the handshake was over: %+v", f)
	}
}

// A names is a resolver that knows addresses of both families.
type names []netip.Addr

func (n names) LookupNetIP(_ context.Context, network, _ string) ([]netip.Addr, error) {
	return slices.DeleteFunc(slices.Clone(n), func(a netip.Addr) bool {
		return network == "ip4" && !a.Is4() || network == "ip6" && !a.Is6()
	}), nil
}

func TestFamilyOfNames(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	for _, tt := range []struct {
		family Family
		known  names
		want   []netip.Addr
	}{
		{AnyFamily, names{six, four}, []netip.Addr{four, six}},
		{OnlyIPv4, names{six, four}, []netip.Addr{four}},
		{OnlyIPv6, names{six, four}, []netip.Addr{six}},
		{PreferIPv4, names{six, four}, []netip.Addr{four}},
		{PreferIPv4, names{six}, []netip.Addr{six}},
	} {
		c := &Cluster{spec: &Spec{DNSFamily: tt.family}}
		if got, err := c.lookup(t.Context(), tt.known, "a.example"); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("family %d of %v: %v, %v", tt.family, tt.known, got, err)
		}
	}
}
