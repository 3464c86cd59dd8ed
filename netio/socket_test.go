// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/memnet"
)

var (
	anyPort4 = netip.MustParseAddrPort("127.0.0.1:0")
	anyPort6 = netip.MustParseAddrPort("[::1]:0")
)

func listen(t *testing.T, addr netip.AddrPort) *net.TCPListener {
	t.Helper()
	l, err := Listen(t.Context(), addr, SocketOptions{})
	if err != nil {
		if addr.Addr().Is6() {
			t.Skip("no IPv6 here:", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// tcpPair returns the two ends of a TCP connection: the dialler's and the accepted one.
func tcpPair(t *testing.T, l *net.TCPListener) (client, server *net.TCPConn) {
	t.Helper()
	var d Dialer
	client, err := d.Dial(t.Context(), AddrPortOf(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func TestOriginalDstOfDirectConnectionIsLocalAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("original destinations need Linux")
	}
	for _, a := range []netip.AddrPort{anyPort4, anyPort6, netip.MustParseAddrPort("[::]:0")} {
		t.Run(a.String(), func(t *testing.T) {
			_, s := tcpPair(t, listen(t, a))
			got, err := OriginalDst(NewPeeked(s))
			if err != nil || got != AddrPortOf(s.LocalAddr()) {
				t.Errorf("got %s, %v; want %s", got, err, s.LocalAddr())
			}
		})
	}
}

func TestOriginalDstOfTwinAndOfStrangers(t *testing.T) {
	n := memnet.New()
	l, _ := n.Listen(netip.MustParseAddrPort("10.0.0.1:80"))
	_, _ = n.Dial(t.Context(), netip.AddrPort{}, l.AddrPort())
	s, _ := l.Accept()
	if got, err := OriginalDst(s); err != nil || got != l.AddrPort() {
		t.Errorf("got %s, %v", got, err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := OriginalDst(a); err == nil {
		t.Error("a pipe has no original destination")
	}
}

func TestTakenPortNamesItsOwner(t *testing.T) {
	l := listen(t, anyPort4)
	_, err := Listen(t.Context(), AddrPortOf(l.Addr()), SocketOptions{})
	var inUse *InUseError
	if !errors.As(err, &inUse) {
		t.Fatalf("got %v", err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	if inUse.Owner == nil || inUse.Owner.PID != os.Getpid() {
		t.Errorf("owner = %v, want process %d", inUse.Owner, os.Getpid())
	}
	if !strings.Contains(err.Error(), "is taken by process") {
		t.Errorf("message: %s", err)
	}
}

func TestTakenUDPPortNamesItsOwner(t *testing.T) {
	c, err := ListenUDP(t.Context(), anyPort4, SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = ListenUDP(t.Context(), AddrPortOf(c.LocalAddr()), SocketOptions{})
	var inUse *InUseError
	if !errors.As(err, &inUse) {
		t.Fatalf("got %v", err)
	}
	if runtime.GOOS == "linux" && inUse.Owner == nil {
		t.Error("owner not found")
	}
}

func TestDialBindsSource(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux answers for all of 127/8")
	}
	l := listen(t, anyPort4)
	d := Dialer{Source: PassthroughSource(AddrPortOf(l.Addr()).Addr()), Timeout: time.Minute}
	c, err := d.Dial(t.Context(), AddrPortOf(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := AddrPortOf(c.LocalAddr()).Addr(); got != InboundPassthrough4 {
		t.Errorf("source = %s", got)
	}
	d.Source = InboundPassthrough6 // the other family: ignored
	c2, err := d.Dial(t.Context(), AddrPortOf(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	_ = c2.Close()
}

func TestDialHonoursContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var d Dialer
	if _, err := d.Dial(ctx, netip.MustParseAddrPort("127.0.0.1:9")); err == nil {
		t.Error("dialled with a cancelled context")
	}
}

func TestReusePortShares(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("socket options need Linux")
	}
	a, err := Listen(t.Context(), anyPort4, SocketOptions{ReusePort: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Listen(t.Context(), AddrPortOf(a.Addr()), SocketOptions{ReusePort: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
}
