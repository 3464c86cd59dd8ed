// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"errors"
	"io"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// splice carries src to dst between two TCP sockets. It waits for bytes before it takes a buffer or
// a pipe, so an idle direction holds neither; small bursts are copied, which costs the same two
// system calls without a pipe; larger ones stay in the kernel. handled is false if the kernel cannot
// say what is there; nothing is lost then, and plain copying goes on.
func (s *session) splice(dst, src *net.TCPConn, n *atomic.Int64) (handled bool, err error) {
	raw, err := src.SyscallConn()
	if err != nil {
		return false, nil
	}
	var (
		there    int
		thereErr error
		burst    = io.LimitedReader{R: src}
	)
	look := func(fd uintptr) bool {
		there, thereErr = peekLen(fd)
		return !errors.Is(thereErr, unix.EAGAIN)
	}
	for {
		if err := raw.Read(look); err != nil {
			return true, err
		}
		var k int64
		switch {
		case errors.Is(thereErr, unix.ECONNRESET), errors.Is(thereErr, unix.ETIMEDOUT):
			return true, &net.OpError{Op: "read", Net: "tcp", Source: src.LocalAddr(), Addr: src.RemoteAddr(), Err: thereErr}
		case thereErr != nil:
			return false, nil
		case there == 0:
			return true, nil
		case there <= copyBuffer:
			k, err = copyBurst(dst, src)
		default:
			burst.N = int64(there)
			k, err = dst.ReadFrom(&burst)
		}
		n.Add(k)
		if err != nil {
			return true, err
		}
		s.progress()
	}
}

// peekLen returns how many bytes wait in a TCP socket, up to maxSplice; 0 at the end of the
// stream; EAGAIN if there is nothing yet. MSG_TRUNC makes the kernel count without copying (tcp(7)), so
// the missing buffer is never written to.
func peekLen(fd uintptr) (int, error) {
	const flags = unix.MSG_PEEK | unix.MSG_TRUNC | unix.MSG_DONTWAIT
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, 0, maxSplice, flags, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		default:
			return 0, errno
		}
	}
}

// copyBurst moves one small read.
func copyBurst(dst, src *net.TCPConn) (int64, error) {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	k, err := src.Read(buf[:])
	if err != nil {
		return 0, err
	}
	w, err := dst.Write(buf[:k])
	return int64(w), err
}
