// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"fmt"
	"net/netip"
	"strings"
)

// Owner is the process that holds a port.
type Owner struct {
	PID     int
	Command string // name and arguments, cut at 120 bytes
}

func (o Owner) String() string {
	if o.Command == "" {
		return fmt.Sprintf("process %d", o.PID)
	}
	return fmt.Sprintf("process %d (%s)", o.PID, strings.Join(strings.Fields(o.Command), " ")) // which may be a whole script
}

// PortOwner finds the process that listens on addr, or on a wildcard that covers it, in this network
// namespace. proto is "tcp" or "udp". It reads /proc, so it sees what this user may see;
// false means not found, or not Linux.
func PortOwner(proto string, addr netip.AddrPort) (Owner, bool) {
	return portOwner(proto, addr)
}
