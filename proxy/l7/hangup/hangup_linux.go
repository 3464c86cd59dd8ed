// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package hangup

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Seen says whether the peer has closed its side of a TCP connection, whatever
// of it has not been read yet. It asks the kernel and reads nothing.
func Seen(conn net.Conn) bool {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = outer.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) { gone = closedByPeer(int(fd)) })
	return gone && err == nil
}

// States of TCP in which the peer has sent FIN or RST (include/net/tcp_states.h).
const (
	tcpTimeWait  = 6
	tcpClose     = 7
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

func closedByPeer(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, syscall.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false
	}
	switch info.State {
	case tcpTimeWait, tcpClose, tcpCloseWait, tcpLastAck, tcpClosing:
		return true
	}
	return false
}
