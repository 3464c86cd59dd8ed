// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestDialReachesListener(t *testing.T) {
	n := New()
	l, err := n.Listen(addr("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := n.Dial(t.Context(), addr("10.0.0.9:0"), l.AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.RemoteAddr().String(); !strings.HasPrefix(got, "10.0.0.9:") {
		t.Errorf("remote = %s", got)
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); err != nil || string(b) != "ping" {
		t.Fatalf("read %q, %v", b, err)
	}
	if _, err := s.Write([]byte("pong")); err != nil {
		t.Fatal("half-closed peer must still read:", err)
	}
	_ = s.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "pong" {
		t.Fatalf("read %q, %v", b, err)
	}
}

func TestDivertedConnectionKnowsWhereItWentTo(t *testing.T) {
	n := New()
	l, _ := n.Listen(addr("0.0.0.0:15001"))
	n.Divert(func(_, dst netip.AddrPort) bool { return dst.Port() == 80 }, addr("127.0.0.1:15001"))
	if _, err := n.Dial(t.Context(), netip.AddrPort{}, addr("10.9.9.9:80")); err != nil {
		t.Fatal(err)
	}
	s, _ := l.Accept()
	if got, _ := s.(*Conn).OriginalDst(); got != addr("10.9.9.9:80") {
		t.Errorf("original destination = %s", got)
	}
}

func TestRefusedTakenAndClosed(t *testing.T) {
	n := New()
	if _, err := n.Dial(t.Context(), netip.AddrPort{}, addr("10.0.0.1:1")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody there: %v", err)
	}
	l, _ := n.Listen(addr("10.0.0.1:1"))
	if _, err := n.Listen(addr("10.0.0.1:1")); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("taken: %v", err)
	}
	c, _ := n.Dial(t.Context(), netip.AddrPort{}, addr("10.0.0.1:1"))
	_ = l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("never accepted: %v", err)
	}
	if _, err := n.Listen(addr("10.0.0.1:1")); err != nil {
		t.Errorf("address not freed: %v", err)
	}
}

func TestDeadlinesInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pair()
		start := time.Now()
		_ = a.SetReadDeadline(start.Add(time.Hour))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read: %v", err)
		}
		if d := time.Since(start); d != time.Hour {
			t.Errorf("waited %s", d)
		}
		_ = a.SetReadDeadline(time.Time{})
		_, _ = b.Write([]byte("x"))
		if _, err := a.Read(make([]byte, 1)); err != nil {
			t.Errorf("after clearing: %v", err)
		}
		_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := a.Write(make([]byte, 2*window))
		if n != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write to a peer that does not read = %d, %v", n, err)
		}
	})
}

func TestCloseWhilePeerWrites(t *testing.T) {
	a, b := Pair()
	_ = b.Close()
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write to closed peer: %v", err)
	}
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read from closed peer: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read on closed: %v", err)
	}
}
