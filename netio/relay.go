// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	copyBuffer = 16 << 10 // one TLS record; also where splicing begins to pay
	maxSplice  = 1 << 20  // what Go's splice pipes hold; slower than this per idle time counts as idle
)

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// ErrIdle ends a relay over which nothing moved for its idle time.
var ErrIdle = errors.New("idle timeout")

var errDefect = errors.New("relay: a panic in a connection's method")

// Relay copies bytes both ways between a and b until both directions have ended, then closes both.
// The end of one direction is passed on as a half-close and the other goes on. A failure in one direction
// ends both; a reset on one side becomes a reset on the other. After idle without a byte either way,
// it ends with ErrIdle (0: never; the true time is up to a quarter longer).
//
// Between TCP connections on Linux bytes stay in the kernel (splice), and a direction that
// has nothing to carry holds neither buffer nor pipe. Peeked connections give back what they hold first.
// What passes is added to moved, which may be looked at meanwhile; it is right whatever err says. A panic in
// either direction, which a Read of a connection's own may be, closes both and is passed on to the caller.
func Relay(a, b net.Conn, idle time.Duration, moved *Counts) error {
	s := &session{a: a, b: b, idle: idle}
	if idle > 0 {
		s.moved.Store(int64(now()))
		s.mu.Lock()
		s.watch = time.AfterFunc(idle/4, s.checkIdle)
		s.mu.Unlock()
	}
	back := make(chan struct{})
	go func() {
		s.run(a, b, &moved.BToA)
		close(back)
	}()
	s.run(b, a, &moved.AToB)
	<-back
	err := s.end()
	if d := s.defect.Load(); d != nil {
		panic(*d)
	}
	return err
}

// Counts are the bytes that a relay has carried.
type Counts struct{ AToB, BToA atomic.Int64 }

// clockStart makes the clock below small enough for an atomic and monotonic.
var clockStart = time.Now()

func now() time.Duration { return time.Since(clockStart) }

// A session is one relay under way.
type session struct {
	a, b  net.Conn
	idle  time.Duration
	moved atomic.Int64 // when a byte last moved, by now()

	defect atomic.Pointer[string] // a panic, with its stack

	mu    sync.Mutex
	watch *time.Timer
	err   error // the first failure
	over  bool
}

// run carries one direction to its end and passes the end on.
func (s *session) run(dst, src net.Conn, n *atomic.Int64) {
	defer func() {
		if p := recover(); p != nil {
			text := fmt.Sprintf("%v\n%s", p, debug.Stack())
			s.defect.Store(&text)
			s.fail(errDefect)
		}
	}()
	err := s.carry(dst, src, n)
	if err == nil {
		err = closeWrite(dst)
		if errors.Is(err, syscall.ENOTCONN) {
			err = nil // the peer is gone in both directions: nothing left to tell it
		}
	}
	if err != nil {
		s.fail(err)
	}
}

func (s *session) carry(dst, src net.Conn, n *atomic.Int64) error {
	if p, ok := src.(*Peeked); ok {
		done, err := s.drain(dst, p, n)
		if done || err != nil {
			return err
		}
		src = p.Conn
	}
	for {
		p, ok := dst.(*Peeked)
		if !ok {
			break
		}
		dst = p.Conn
	}
	d, dTCP := dst.(*net.TCPConn)
	r, rTCP := src.(*net.TCPConn)
	if dTCP && rTCP {
		handled, err := s.splice(d, r, n)
		if handled {
			return err
		}
	}
	return s.copy(dst, src, n)
}

// drain hands over what p holds back; done if that was the end of the stream.
func (s *session) drain(dst net.Conn, p *Peeked, n *atomic.Int64) (done bool, err error) {
	for p.w > p.r {
		k, err := dst.Write(p.buf[p.r:p.w])
		p.r += k
		n.Add(int64(k))
		if err != nil {
			return false, err
		}
	}
	p.release()
	s.progress()
	err, p.err = p.err, nil
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// copy is the way through user space: TLS, tunnels, twins in memory.
func (s *session) copy(dst, src net.Conn, n *atomic.Int64) error {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	for {
		k, rerr := src.Read(buf[:])
		if k > 0 {
			s.progress()
			w, werr := dst.Write(buf[:k])
			n.Add(int64(w))
			if werr != nil {
				return werr
			}
			s.progress()
		}
		if errors.Is(rerr, io.EOF) {
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
}

func (s *session) progress() {
	if s.idle > 0 {
		s.moved.Store(int64(now()))
	}
}

func (s *session) checkIdle() {
	still := now() - time.Duration(s.moved.Load())
	if still >= s.idle {
		s.fail(fmt.Errorf("relay: nothing moved for %s: %w", s.idle, ErrIdle))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.watch.Reset(max(s.idle-still, s.idle/4))
	}
}

// fail remembers the first failure and closes both ends, which unblocks the other direction.
func (s *session) fail(err error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
	}
	s.over = true
	s.mu.Unlock()
	if !first {
		return
	}
	if errors.Is(err, syscall.ECONNRESET) {
		reset(s.a)
		reset(s.b)
	}
	_ = s.a.Close()
	_ = s.b.Close()
}

func (s *session) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch != nil {
		s.watch.Stop()
	}
	if !s.over {
		s.over = true
		_ = s.a.Close()
		_ = s.b.Close()
	}
	return s.err
}

// reset closes what c is made of with a reset instead of a graceful end, and before anything around it, such as TLS,
// says that this is the end.
func reset(c net.Conn) {
	for {
		switch v := c.(type) {
		case *net.TCPConn:
			_ = v.SetLinger(0)
			_ = v.Close()
			return
		case interface{ NetConn() net.Conn }:
			c = v.NetConn()
		default:
			return
		}
	}
}

// closeWrite ends the direction towards c's peer; all of c where it cannot end just one.
func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		err := h.CloseWrite()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		return err
	}
	return c.Close()
}
