// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package freeport

import (
	"net"
	"net/netip"
	"testing"
)

// Pools that begin at the same place give other ports, though nobody listens yet.
func TestPortsAreGivenOnce(t *testing.T) {
	const start = 1_234_567_890
	seen := map[uint16]bool{}
	var pools []*Pool
	for range 3 {
		p := New(start)
		defer p.Release()
		pools = append(pools, p)
		for range 30 {
			port, err := p.Give()
			if err != nil {
				t.Fatal(err)
			}
			if seen[port] || port < first || port >= first+count {
				t.Errorf("got %d after %v", port, seen)
			}
			seen[port] = true
			l, err := net.Listen("tcp", netip.AddrPortFrom(loopback, port).String())
			if err != nil {
				t.Error(err)
				continue
			}
			defer l.Close()
		}
	}
	for _, p := range pools {
		p.Release()
	}
	p := New(start)
	defer p.Release()
	if port, err := p.Give(); err != nil || seen[port] {
		t.Errorf("got %d, %v: it is listened on", port, err)
	}
}

func TestReleasedPortsAreGivenAgain(t *testing.T) {
	for start := range uint32(20) { // others may be at work on the machine
		p := New(start)
		one, err := p.Give()
		if err != nil {
			t.Fatal(err)
		}
		p.Release()
		again := New(start)
		two, err := again.Give()
		again.Release()
		if err != nil {
			t.Fatal(err)
		}
		if two == one {
			return
		}
	}
	t.Error("no port was given again")
}

// Past the last port comes the first.
func TestTheRangeIsACircle(t *testing.T) {
	p := New(count - 1)
	defer p.Release()
	for range 2 {
		if port, err := p.Give(); err != nil || port < first || port >= first+count {
			t.Errorf("got %d, %v", port, err)
		}
	}
}
