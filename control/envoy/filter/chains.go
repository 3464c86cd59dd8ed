// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/mesh"
)

// Chains are filter chains of which no two match the same connection equally well, which an Envoy refuses: what the
// first has taken, later ones do not get.
type Chains struct {
	List  []*listenerv3.FilterChain
	Rest  *listenerv3.FilterChain // for whatever no other takes
	TLS   bool                    // some look at TLS
	taken map[claim]bool
}

// A claim is one name at one destination.
type claim struct {
	transport, name string
	at              netip.Prefix
}

// NewChains has none.
func NewChains() *Chains { return &Chains{taken: map[claim]bool{}} }

// A Want is what a chain is for; empty fields ask for nothing.
type Want struct {
	Transport string
	Names     []mesh.Hostname
	At        []netip.Prefix
}

// Add adds a chain for what of w is still free, with filters that make makes, unless nothing is.
func (s *Chains) Add(w Want, md *corev3.Metadata, make func() []*listenerv3.Filter) {
	at := w.At
	if len(at) == 0 {
		at = []netip.Prefix{{}}
	}
	names := []string{""}
	if len(w.Names) > 0 && !slices.Contains(w.Names, "*") {
		names = nil
		for _, n := range w.Names {
			names = append(names, string(n))
		}
	}
	var m listenerv3.FilterChainMatch
	free := false
	for _, n := range names {
		if slices.ContainsFunc(at, func(p netip.Prefix) bool { return s.taken[claim{w.Transport, n, p}] }) {
			continue
		}
		for _, p := range at {
			s.taken[claim{w.Transport, n, p}] = true
		}
		free = true
		if n != "" {
			m.ServerNames = append(m.ServerNames, n)
		}
	}
	if !free {
		return
	}
	ch := &listenerv3.FilterChain{Filters: make(), Metadata: md}
	if w.Transport == "" && len(w.At) == 0 && len(m.ServerNames) == 0 {
		s.Rest = ch
		return
	}
	s.TLS = s.TLS || w.Transport == "tls" || len(m.ServerNames) > 0
	m.TransportProtocol = w.Transport
	for _, p := range w.At {
		m.PrefixRanges = append(m.PrefixRanges, &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))})
	}
	ch.FilterChainMatch = &m
	s.List = append(s.List, ch)
}
