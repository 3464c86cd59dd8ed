// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/mesh"
)

// A Rule is a condition on a connection under which a listener filter is left out; nil never holds.
type Rule = *listenerv3.ListenerFilterChainMatchPredicate

func listenerFilter(name string, m proto.Message, disabled Rule) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{
		Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: emit.Any(m)}, FilterDisabled: disabled,
	}
}

// OriginalDst restores the address that the client wanted.
func OriginalDst() *listenerv3.ListenerFilter {
	return listenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}, nil)
}

// OriginalSrc keeps the client's address towards the application, where capture is transparent.
func OriginalSrc() *listenerv3.ListenerFilter {
	return listenerFilter("envoy.filters.listener.original_src", &originalsrcv3.OriginalSrc{Mark: mesh.ProxyMark}, nil)
}

// TLSInspector tells TLS from other bytes, and reads the names that a client offers.
func TLSInspector(disabled Rule) *listenerv3.ListenerFilter {
	return listenerFilter("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{}, disabled)
}

// HTTPInspector tells HTTP from other bytes.
func HTTPInspector(disabled Rule) *listenerv3.ListenerFilter {
	return listenerFilter("envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{}, disabled)
}

// Needs says which ports of a listener need an inspector: each of Ports as it says, all others as Others says.
// Where a filter is not needed it must not run: it would wait for the client's first bytes, and
// where the server speaks first these never come.
type Needs struct {
	Ports  map[int]bool
	Others bool
}

// Disabled is the rule for a filter that is needed so; needed says whether it is needed anywhere.
func (n Needs) Disabled() (rule Rule, needed bool) {
	var differ []int
	for port, v := range n.Ports {
		if v != n.Others {
			differ = append(differ, port)
		}
	}
	slices.Sort(differ)
	switch {
	case len(differ) == 0:
		return nil, n.Others
	case n.Others:
		return anyOf(differ), true
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{
		Rule: &listenerv3.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: anyOf(differ)},
	}, true
}

func anyOf(ports []int) Rule {
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1}},
		})
	}
	if len(rules) == 1 {
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
		OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules},
	}}
}

// Direction of a listener's traffic.
const (
	Inbound  = corev3.TrafficDirection_INBOUND
	Outbound = corev3.TrafficDirection_OUTBOUND
)
