// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
)

// A Tap stands before a sidecar and keeps all that passes on the wire.
type Tap struct {
	Addr netip.AddrPort
	to   netip.AddrPort
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns []*Tapped
	open  map[net.Conn]struct{}
}

// Tapped is what passed over one connection.
type Tapped struct {
	mu     sync.Mutex
	there  []byte // from the client
	back   []byte // from the server
	closed bool
}

// Bytes returns what client and server have sent so far.
func (c *Tapped) Bytes() (client, server string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.there), string(c.back)
}

// NewTap listens on loopback and passes every connection on to to.
func NewTap(t testing.TB, to netip.AddrPort) *Tap {
	t.Helper()
	addr := freeporttest.Addr(t)
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	tap := &Tap{Addr: addr, to: to, open: make(map[net.Conn]struct{})}
	tap.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			tap.wg.Go(func() { tap.relay(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		tap.mu.Lock()
		for c := range tap.open {
			_ = c.Close()
		}
		tap.mu.Unlock()
		tap.wg.Wait()
	})
	return tap
}

// Conns returns every connection since the start.
func (tap *Tap) Conns() []*Tapped {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return append([]*Tapped(nil), tap.conns...)
}

// Ended counts the connections that are closed.
func (tap *Tap) Ended() (n int) {
	for _, c := range tap.Conns() {
		c.mu.Lock()
		if c.closed {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

func (tap *Tap) relay(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", tap.to.String())
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	c := &Tapped{}
	tap.mu.Lock()
	tap.conns = append(tap.conns, c)
	tap.open[client], tap.open[server] = struct{}{}, struct{}{}
	tap.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { c.pass(server, client, &c.there) })
	wg.Go(func() { c.pass(client, server, &c.back) })
	wg.Wait()
	tap.mu.Lock()
	delete(tap.open, client)
	delete(tap.open, server)
	tap.mu.Unlock()
}

// pass copies until from ends, and then ends to.
func (c *Tapped) pass(to, from net.Conn, record *[]byte) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		*record = append(*record, buf[:n]...)
		c.mu.Unlock()
		if _, werr := to.Write(buf[:n]); werr != nil {
			err = werr
		}
		if err != nil {
			c.mu.Lock()
			c.closed = true
			c.mu.Unlock()
			if err == io.EOF {
				_ = to.(*net.TCPConn).CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		}
	}
}
