// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package hangup

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// States of TCP in which the peer has sent FIN or RST (include/net/tcp_states.h).
const (
	tcpTimeWait  = 6
	tcpClose     = 7
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// closedByPeer asks the kernel; of what is not TCP it knows nothing.
func closedByPeer(fd uintptr) bool {
	info, err := unix.GetsockoptTCPInfo(int(fd), syscall.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false
	}
	switch info.State {
	case tcpTimeWait, tcpClose, tcpCloseWait, tcpLastAck, tcpClosing:
		return true
	}
	return false
}
