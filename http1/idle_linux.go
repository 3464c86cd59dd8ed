// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// descriptor reaches for the descriptor under conn, or returns nil.
func descriptor(conn net.Conn) syscall.RawConn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// A lazyReader waits for a socket's bytes without holding a buffer meanwhile,
// at no cost in system calls: ten thousand idle connections hold none.
type lazyReader struct {
	raw  syscall.RawConn
	step func(fd uintptr) bool
	buf  *buffer
	n    int
	err  error
}

// newLazyReader returns nil for what is not a plain socket: TLS has buffers of
// its own.
func newLazyReader(conn net.Conn) *lazyReader {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	l := &lazyReader{raw: descriptor(conn)}
	if l.raw == nil {
		return nil
	}
	l.step = l.try
	return l
}

// read returns a buffer with the first n > 0 bytes that come.
func (l *lazyReader) read() (buf *buffer, n int, err error) {
	l.buf, l.n, l.err = nil, 0, nil
	if err := l.raw.Read(l.step); err != nil {
		return nil, 0, err
	}
	buf, l.buf = l.buf, nil
	switch {
	case l.err != nil:
		buf.put()
		return nil, 0, os.NewSyscallError("read", l.err)
	case l.n == 0:
		buf.put()
		return nil, 0, io.EOF
	}
	return buf, l.n, nil
}

// try reads once, and says false if it must be called again when there is something.
func (l *lazyReader) try(fd uintptr) bool {
	l.buf = getBuffer(minReadBuffer)
	for {
		if l.n, l.err = syscall.Read(int(fd), l.buf.b); l.err != syscall.EINTR {
			break
		}
	}
	if l.err == syscall.EAGAIN {
		l.buf.put()
		l.buf, l.err = nil, nil
		return false
	}
	return true
}

// An idleCheck asks the kernel whether there is anything to read, without
// reading it. What it needs is made once per connection.
type idleCheck struct {
	raw  syscall.RawConn
	peek func(fd uintptr)
	none bool // there is no descriptor
	busy bool // the last peek found something
	one  [1]byte
}

func (i *idleCheck) quiet(conn net.Conn) bool {
	if i.raw == nil && !i.none {
		i.find(conn)
	}
	if i.none {
		return true
	}
	i.busy = true
	if i.raw.Control(i.peek) != nil {
		return false // closed by ourselves
	}
	return !i.busy
}

func (i *idleCheck) find(conn net.Conn) {
	i.raw = descriptor(beneath(conn))
	i.none = i.raw == nil
	i.peek = func(fd uintptr) {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&i.one[0])), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		i.busy = errno != syscall.EAGAIN
	}
}
