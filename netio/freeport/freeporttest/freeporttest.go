// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package freeporttest gives tests ports for the programs they start.
package freeporttest

import (
	"net/netip"
	"os"
	"sync/atomic"
	"testing"

	"github.com/meltemi/meltemi/netio/freeport"
)

// next begins to look past what this process was given before.
var next atomic.Uint32

const far = 997 // so that processes that run at once seldom meet

// Addr is an address of loopback on which nobody listens, and which nobody else is given until the test has ended.
func Addr(t testing.TB) netip.AddrPort {
	t.Helper()
	p := freeport.New(uint32(os.Getpid())*far + next.Add(1))
	t.Cleanup(p.Release)
	port, err := p.Give()
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}
