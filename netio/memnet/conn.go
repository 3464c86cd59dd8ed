// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const window = 64 << 10 // bytes written that the peer has not read yet

// A Conn is one end of a connection.
type Conn struct {
	in, out       *pipe
	local, remote netip.AddrPort
	original      netip.AddrPort
}

var _ net.Conn = (*Conn)(nil)

// Pair returns the two ends of a connection that no listener was asked for.
func Pair() (*Conn, *Conn) {
	lo := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	a, b := netip.AddrPortFrom(lo, 1), netip.AddrPortFrom(lo, 2)
	return pair(a, b, b)
}

func pair(src, dst, original netip.AddrPort) (client, server *Conn) {
	up, down := newPipe(), newPipe()
	client = &Conn{in: down, out: up, local: src, remote: dst, original: dst}
	server = &Conn{in: up, out: down, local: dst, remote: src, original: original}
	return client, server
}

// Read returns bytes the peer wrote; io.EOF after its end.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	return n, c.wrap("read", err)
}

// Write blocks while the peer has not read enough of what came before.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.out.write(b)
	return n, c.wrap("write", err)
}

func (c *Conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// CloseWrite ends our direction; the peer reads what is under way, then io.EOF.
func (c *Conn) CloseWrite() error {
	c.out.finish(io.EOF)
	return nil
}

// Close ends both directions. As with TCP, a peer that goes on writing is reset.
func (c *Conn) Close() error {
	c.out.finish(io.EOF)
	c.out.abandon(net.ErrClosed, nil)
	c.in.abandon(syscall.ECONNRESET, net.ErrClosed)
	return nil
}

// Reset drops what is under way; the peer reads a connection reset.
func (c *Conn) Reset() {
	c.out.abandon(net.ErrClosed, syscall.ECONNRESET)
	c.in.abandon(syscall.ECONNRESET, net.ErrClosed)
}

// LocalAddr returns our address, a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr returns the peer's address, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// OriginalDst returns the address that was dialled, whatever listener it was diverted to.
func (c *Conn) OriginalDst() (netip.AddrPort, error) { return c.original, nil }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.readBy.set(c.in, t)
	c.out.writeBy.set(c.out, t)
	return nil
}

// SetReadDeadline fails reads at t with os.ErrDeadlineExceeded.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.readBy.set(c.in, t)
	return nil
}

// SetWriteDeadline fails writes at t with os.ErrDeadlineExceeded.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.writeBy.set(c.out, t)
	return nil
}

// A pipe carries one direction.
type pipe struct {
	mu              sync.Mutex
	changed         *sync.Cond
	buf             []byte
	readBy, writeBy deadline
	ended           error // what the reader gets when buf is empty: io.EOF or worse
	readErr         error // what the reader gets at once
	writeErr        error // what the writer gets at once
}

func newPipe() *pipe {
	p := &pipe{}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.readErr != nil:
			return 0, p.readErr
		case p.readBy.passed:
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case len(p.buf) > 0:
			n := copy(b, p.buf)
			p.buf = append(p.buf[:0], p.buf[n:]...)
			p.changed.Broadcast()
			return n, nil
		case p.ended != nil:
			return 0, p.ended
		}
		p.changed.Wait()
	}
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for {
		switch {
		case p.writeErr != nil:
			return written, p.writeErr
		case p.ended != nil:
			return written, syscall.EPIPE
		case p.writeBy.passed:
			return written, os.ErrDeadlineExceeded
		case len(b) == 0:
			return written, nil
		}
		if room := window - len(p.buf); room > 0 {
			n := min(room, len(b))
			p.buf = append(p.buf, b[:n]...)
			b, written = b[n:], written+n
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
}

// finish lets the reader have what is there, then end.
func (p *pipe) finish(end error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended == nil {
		p.ended = end
	}
	p.changed.Broadcast()
}

// abandon fails the writer with writeErr and, if readErr is set, the reader with that, at once.
func (p *pipe) abandon(writeErr, readErr error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writeErr == nil {
		p.writeErr = writeErr
	}
	if readErr != nil {
		if p.readErr == nil {
			p.readErr = readErr
		}
		p.buf = nil
	}
	p.changed.Broadcast()
}

type deadline struct {
	timer  *time.Timer
	turn   int // counts settings, so that a timer that lost a race does nothing
	passed bool
}

func (d *deadline) set(p *pipe, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.turn++
	d.passed = false
	defer p.changed.Broadcast()
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		return
	}
	turn := d.turn
	d.timer = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if d.turn == turn {
			d.passed = true
			p.changed.Broadcast()
		}
	})
}
