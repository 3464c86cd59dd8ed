// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/filter"
)

// Envoy's defaults.
const (
	listenerBuffer = 1 << 20
	inspectTimeout = 15 * time.Second
)

// listener reads m. Chains of old, which may be nil, that did not change are kept.
func (b *builder) listener(m *listenerv3.Listener, hash uint64, old *Listener) (*Listener, error) {
	l := &Listener{
		Name: m.GetName(), Hash: hash, Source: decode.Source(m.GetMetadata()),
		Bind: true, HandOff: m.GetUseOriginalDst().GetValue(), Transparent: m.GetTransparent().GetValue(),
		InspectTimeout: inspectTimeout, ContinueOnTimeout: m.GetContinueOnListenerFiltersTimeout(),
		BufferLimit: listenerBuffer,
	}
	l.OriginalDst = l.HandOff
	switch m.GetTrafficDirection() {
	case corev3.TrafficDirection_INBOUND:
		l.Direction = filter.Inbound
	case corev3.TrafficDirection_OUTBOUND:
		l.Direction = filter.Outbound
	}
	if v := m.GetDeprecatedV1().GetBindToPort(); v != nil {
		l.Bind = v.GetValue()
	}
	if v := m.GetBindToPort(); v != nil {
		l.Bind = v.GetValue()
	}
	if n := m.GetPerConnectionBufferLimitBytes(); n != nil {
		l.BufferLimit = n.GetValue()
	}
	if t := m.GetListenerFiltersTimeout(); t != nil {
		l.InspectTimeout = t.AsDuration()
	}
	if err := listenerAddresses(l, m); err != nil {
		return nil, err
	}
	for i, f := range m.GetListenerFilters() {
		if err := listenerFilter(l, f); err != nil {
			return nil, fmt.Errorf("listener_filters[%d] %q: %w", i, f.GetName(), err)
		}
	}
	var err error
	if l.AccessLogs, err = b.accessLogs(m.GetAccessLog()); err != nil {
		return nil, err
	}
	if err := b.chains(l, m, old); err != nil {
		return nil, err
	}
	return l, nil
}

func listenerAddresses(l *Listener, m *listenerv3.Listener) error {
	first, err := listenerAddress(m.GetAddress())
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	l.Addrs = append(l.Addrs, first)
	for i, a := range m.GetAdditionalAddresses() {
		next, err := listenerAddress(a.GetAddress())
		if err != nil {
			return fmt.Errorf("additional_addresses[%d]: %w", i, err)
		}
		l.Addrs = append(l.Addrs, next)
	}
	return nil
}

func listenerAddress(m *corev3.Address) (Address, error) {
	switch a := m.GetAddress().(type) {
	case *corev3.Address_SocketAddress:
		s := a.SocketAddress
		if s.GetProtocol() != corev3.SocketAddress_TCP {
			return Address{}, fmt.Errorf("protocol %s is not supported", s.GetProtocol())
		}
		ip, err := netip.ParseAddr(s.GetAddress())
		if err != nil {
			return Address{}, err
		}
		if s.GetPortValue() > math.MaxUint16 {
			return Address{}, fmt.Errorf("%d is no port", s.GetPortValue())
		}
		return Address{IP: netip.AddrPortFrom(ip.Unmap(), uint16(s.GetPortValue()))}, nil
	case *corev3.Address_Pipe:
		return Address{Pipe: a.Pipe.GetPath()}, nil
	}
	return Address{}, errors.New("the address is missing")
}

// listenerFilter is the table of listener filters.
func listenerFilter(l *Listener, m *listenerv3.ListenerFilter) error {
	disabled, err := predicate(m.GetFilterDisabled())
	if err != nil {
		return fmt.Errorf("filter_disabled: %w", err)
	}
	a := m.GetTypedConfig()
	once := func(there bool) error {
		if there {
			return errors.New("it is there twice")
		}
		return nil
	}
	unconditional := func() error {
		if disabled != nil {
			return errors.New("filter_disabled is not supported for this filter")
		}
		return nil
	}
	switch strings.TrimPrefix(a.GetTypeUrl(), strict.Prefix+"envoy.extensions.filters.listener.") {
	case "original_dst.v3.OriginalDst":
		l.OriginalDst = true
		return errors.Join(unconditional(), strict.Unmarshal(a, &originaldstv3.OriginalDst{}))
	case "original_src.v3.OriginalSrc":
		return errors.New("original_src is not supported: the application would see the proxy's address all the same")
	case "tls_inspector.v3.TlsInspector":
		var c tlsinspectorv3.TlsInspector
		err := errors.Join(once(l.TLSInspector != nil), strict.Unmarshal(a, &c))
		l.TLSInspector = &Inspector{Disabled: disabled, Limit: c.GetMaxClientHelloSize().GetValue()}
		return err
	case "http_inspector.v3.HttpInspector":
		err := errors.Join(once(l.HTTPInspector != nil), strict.Unmarshal(a, &httpinspectorv3.HttpInspector{}))
		l.HTTPInspector = &Inspector{Disabled: disabled}
		return err
	case "proxy_protocol.v3.ProxyProtocol":
		return errors.Join(once(l.ProxyProtocol != nil), unconditional(), proxyProtocol(l, a))
	}
	return fmt.Errorf("type %q is not supported", a.GetTypeUrl())
}

func proxyProtocol(l *Listener, a *anypb.Any) error {
	var c proxyprotocolv3.ProxyProtocol
	if err := strict.Unmarshal(a, &c); err != nil {
		return err
	}
	p := &ProxyProtocol{Optional: c.GetAllowRequestsWithoutProxyProtocol(), V1: true, V2: true}
	for _, v := range c.GetDisallowedVersions() {
		switch v {
		case corev3.ProxyProtocolConfig_V1:
			p.V1 = false
		case corev3.ProxyProtocolConfig_V2:
			p.V2 = false
		}
	}
	l.ProxyProtocol = p
	return nil
}

// maxPredicate bounds how deep predicates are nested.
const maxPredicate = 32

func predicate(m *listenerv3.ListenerFilterChainMatchPredicate) (*Predicate, error) {
	if m == nil {
		return nil, nil
	}
	p, err := predicateAt(m, 0)
	return &p, err
}

func predicateAt(m *listenerv3.ListenerFilterChainMatchPredicate, depth int) (p Predicate, err error) {
	if depth > maxPredicate {
		return p, fmt.Errorf("nested more than %d deep", maxPredicate)
	}
	list := func(op PredicateOp, of []*listenerv3.ListenerFilterChainMatchPredicate) (Predicate, error) {
		p := Predicate{Op: op}
		for _, o := range of {
			q, err := predicateAt(o, depth+1)
			if err != nil {
				return p, err
			}
			p.Of = append(p.Of, q)
		}
		return p, nil
	}
	switch r := m.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_AnyMatch:
		if !r.AnyMatch {
			return p, errors.New("any_match: false is not supported")
		}
		return Predicate{Op: PredicateAny}, nil
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		return list(PredicateOr, r.OrMatch.GetRules())
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		return list(PredicateAnd, r.AndMatch.GetRules())
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		return list(PredicateNot, []*listenerv3.ListenerFilterChainMatchPredicate{r.NotMatch})
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		lo, hi := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		if lo < 0 || hi > math.MaxUint16+1 || lo >= hi {
			return p, fmt.Errorf("destination_port_range [%d, %d) is no range of ports", lo, hi)
		}
		return Predicate{Op: PredicatePort, Ports: match.Ports{Lo: uint32(lo), Hi: uint32(hi)}}, nil
	}
	return p, errors.New("a predicate without a rule")
}
