// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package freeport chooses TCP ports of loopback for programs that are yet to be started.
//
//	freeport.go      pools of ports, each kept from every other pool of the machine
//	freeporttest/    the same for tests
package freeport

import (
	"errors"
	"net"
	"net/netip"
)

// Ports given lie below those that systems give to outgoing connections, which could otherwise take one between
// our choosing it and its use.
const (
	first = 20000
	count = 10000
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// A Pool gives each port once. Whoever it is for opens it later, and again whenever it is restarted; so that no other
// process takes it for its own programs meanwhile, each port given is kept by a UDP socket of the same number. The
// system closes that with this process, however it ends. So whoever was given a port cannot have it for UDP, too. It
// is not safe for use by several goroutines at once.
type Pool struct {
	next int
	kept []*net.UDPConn
}

// New begins to look at a place that start, any number, stands for: with the same one, the same ports
// are given, as long as they are free.
func New(start uint32) *Pool { return &Pool{next: int(start % count)} }

// Give returns a port that nobody listens on and that no living Pool has given.
func (p *Pool) Give() (uint16, error) {
	for range count {
		addr := netip.AddrPortFrom(loopback, uint16(first+p.next))
		p.next = (p.next + 1) % count
		keep, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			continue
		}
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		if err != nil {
			_ = keep.Close()
			continue
		}
		_ = l.Close()
		p.kept = append(p.kept, keep)
		return addr.Port(), nil
	}
	return 0, errors.New("no port is free on 127.0.0.1 from 20000 to 29999: end some of the programs that listen there, or other meshes")
}

// Release lets others have the ports.
func (p *Pool) Release() {
	for _, c := range p.kept {
		_ = c.Close()
	}
	p.kept = nil
}
