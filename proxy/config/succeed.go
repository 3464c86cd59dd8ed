// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
)

// Succeeds says whether c may conduct the connections of old from their next
// exchange on: whether all that was settled when they began is the same. Otherwise they
// have to end, and their clients come back.
//
// A policy, a filter or a log that changes is in force at once so, on open
// connections too, and costs nobody a handshake.
func (c *FilterChain) Succeeds(old *FilterChain) bool {
	return c.HTTP != nil && old.HTTP != nil && c.outer == old.outer && c.HTTP.sameWire(old.HTTP)
}

// outerHash is of what a connection passes once, at its beginning: TLS, and the
// network filters before the last one.
func outerHash(m *listenerv3.FilterChain) uint64 {
	before := m.GetFilters()
	if len(before) > 0 {
		before = before[:len(before)-1]
	}
	return hashOf(&listenerv3.FilterChain{TransportSocket: m.GetTransportSocket(), Filters: before})
}

// sameWire compares what codecs are given when a connection begins.
func (h *HTTP) sameWire(o *HTTP) bool {
	return h.Codec == o.Codec && h.HTTP1 == o.HTTP1 && h.HTTP2 == o.HTTP2 &&
		h.MaxHeaderBytes == o.MaxHeaderBytes && h.MaxHeaders == o.MaxHeaders && h.MaxDuration == o.MaxDuration
}
