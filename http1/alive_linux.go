// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"net"
	"syscall"
	"unsafe"
)

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

// find reaches for the descriptor under conn, through TLS.
func (i *idleCheck) find(conn net.Conn) {
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = inner.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		i.none = true
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		i.none = true
		return
	}
	i.raw = raw
	i.peek = func(fd uintptr) {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&i.one[0])), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		i.busy = errno != syscall.EAGAIN
	}
}
