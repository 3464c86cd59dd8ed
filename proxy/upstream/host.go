// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// A Host is one endpoint of one cluster. Its identity is its address and what
// its connections depend on; weight, health and metadata change in place, so an
// update closes no connection.
type Host struct {
	// Read-only after newHost.
	addr      netip.AddrPort
	pipe      string
	text      string // "ip:port" or the pipe's path, as logs print it
	transport *Transport
	created   time.Time
	pool      *pool
	stats     HostStats

	endpoint atomic.Pointer[Endpoint]
	priority atomic.Uint32 // of the last assignment
	used     atomic.Int64  // unix nanoseconds of the last pick; for original-destination hosts
	outlier  ejection
}

func newHost(e *Endpoint, t *Transport, now time.Time) *Host {
	h := &Host{addr: e.Addr, pipe: e.Pipe, transport: t, created: now}
	h.text = e.Pipe
	if h.text == "" {
		h.text = e.Addr.String()
	}
	h.endpoint.Store(e)
	h.pool = newPool(h)
	return h
}

// Endpoint returns what the control plane last said of h; read-only.
func (h *Host) Endpoint() *Endpoint { return h.endpoint.Load() }

// Addr returns where h listens; invalid for a unix socket.
func (h *Host) Addr() netip.AddrPort { return h.addr }

// String returns "ip:port", or the path of a unix socket, without allocating.
func (h *Host) String() string { return h.text }

// Transport tells how connections to h are secured; read-only.
func (h *Host) Transport() *Transport { return h.transport }

// Stats returns h's counters.
func (h *Host) Stats() *HostStats { return &h.stats }

// Ejected says whether outlier detection holds h out of balancing.
func (h *Host) Ejected() bool { return h.outlier.ejected.Load() }
