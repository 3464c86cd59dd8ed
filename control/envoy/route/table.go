// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
)

// Field numbers of RouteConfiguration and VirtualHost.
const (
	fieldHosts   = 2
	fieldDomains = 2
)

// A Host is one virtual host, marshalled, so that a table of thousands in which one changes is put together from
// bytes that are there. Only its domains are apart, because another host may have claimed one.
type Host struct {
	Name    string
	Domains []string
	Rest    []byte // the message without its domains
}

// NewHost marshals m, and takes it over.
func NewHost(m *routev3.VirtualHost) *Host {
	h := &Host{Name: m.Name, Domains: m.Domains}
	m.Domains = nil
	h.Rest = emit.Bytes(m)
	return h
}

// Equal compares two, of which either may be nil.
func Equal(a, b *Host) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && slices.Equal(a.Domains, b.Domains) && string(a.Rest) == string(b.Rest)
}

// Table puts hosts together under a name, sorted by theirs, last at the end. Of two that claim a domain the first by
// name keeps it: an Envoy refuses a table in which two hosts have one.
func Table(name string, keepPort bool, hosts []*Host, last *Host) *anypb.Any {
	m := &routev3.RouteConfiguration{
		Name: name, ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: !keepPort,
		MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(1 << 20),
	}
	slices.SortFunc(hosts, func(a, b *Host) int { return strings.Compare(a.Name, b.Name) })
	if last != nil {
		hosts = append(hosts, last)
	}
	size := 256
	for _, h := range hosts {
		size += len(h.Rest) + 64*len(h.Domains)
	}
	bytes := append(make([]byte, 0, size), emit.Bytes(m)...)
	taken := make(map[string]bool, 4*len(hosts))
	var one []byte
	for _, h := range hosts {
		one = append(one[:0], h.Rest...)
		some := false
		for _, d := range h.Domains {
			if d = strings.ToLower(d); !taken[d] {
				taken[d], some = true, true
				one = protowire.AppendTag(one, fieldDomains, protowire.BytesType)
				one = protowire.AppendString(one, d)
			}
		}
		if some {
			bytes = protowire.AppendTag(bytes, fieldHosts, protowire.BytesType)
			bytes = protowire.AppendBytes(bytes, one)
		}
	}
	return emit.Packed(m, bytes)
}
