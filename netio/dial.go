// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// InboundPassthrough is the source address of connections from an inbound proxy to its own
// application. Capture rules let it pass, so that the proxy does not capture itself
// (Istio's InboundPassthroughBindIpv4 and its IPv6 sister).
var (
	InboundPassthrough4 = netip.AddrFrom4([4]byte{127, 0, 0, 6})
	InboundPassthrough6 = netip.AddrFrom16([16]byte{15: 6})
)

// A Dialer opens outgoing TCP connections. The zero value dials like net.Dialer.
type Dialer struct {
	Options SocketOptions
	Source  netip.Addr    // local address to bind, if valid; ignored for the other IP family
	Timeout time.Duration // for the connect alone; 0 means until ctx ends or the kernel gives up

	// KeepAlive is passed on to the socket; the zero value means Go's defaults.
	KeepAlive net.KeepAliveConfig
}

// Dial connects to addr. Names are never resolved here.
func (d *Dialer) Dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	nd := net.Dialer{
		Timeout:         d.Timeout,
		KeepAliveConfig: d.KeepAlive,
		Control:         Control(d.Options),
	}
	if d.Source.IsValid() && d.Source.Is4() == addr.Addr().Unmap().Is4() {
		nd.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(d.Source, 0))
	}
	c, err := nd.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	tc, ok := c.(*net.TCPConn)
	if !ok { // cannot happen: we asked for tcp
		_ = c.Close()
		return nil, fmt.Errorf("dial %s: got a %T", addr, c)
	}
	return tc, nil
}

// PassthroughSource returns the source address an inbound proxy uses towards dst.
func PassthroughSource(dst netip.Addr) netip.Addr {
	if dst.Unmap().Is4() {
		return InboundPassthrough4
	}
	return InboundPassthrough6
}
