// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/strict"
)

// chains reads the chains of a listener and builds its tree.
func (b *builder) chains(l *Listener, m *listenerv3.Listener, old *Listener) (err error) {
	if len(m.GetFilterChains()) == 0 && m.GetDefaultFilterChain() == nil {
		return errors.New("it has neither filter_chains nor a default_filter_chain")
	}
	kept := map[uint64]*FilterChain{}
	if old != nil && old.Direction == l.Direction {
		for _, c := range old.Chains {
			kept[c.Hash] = c
		}
	}
	for i, fc := range m.GetFilterChains() {
		c, err := b.chain(l, fc, kept)
		if err != nil {
			return fmt.Errorf("filter_chains[%d] %q: %w", i, fc.GetName(), err)
		}
		l.Chains = append(l.Chains, c)
	}
	if l.tree, err = newChainTree(l.Chains); err != nil {
		return err
	}
	if fc := m.GetDefaultFilterChain(); fc != nil {
		kept = nil
		if old != nil && old.Default != nil && old.Direction == l.Direction {
			kept = map[uint64]*FilterChain{old.Default.Hash: old.Default}
		}
		if l.Default, err = b.chain(l, fc, kept); err != nil {
			return fmt.Errorf("default_filter_chain %q: %w", fc.GetName(), err)
		}
	}
	return nil
}

func (b *builder) chain(l *Listener, m *listenerv3.FilterChain, kept map[uint64]*FilterChain) (*FilterChain, error) {
	hash := hashOf(m)
	if c := kept[hash]; c != nil {
		delete(kept, hash) // each is kept once
		return c, nil
	}
	c := &FilterChain{
		Name: m.GetName(), Hash: hash, Listener: l.Name, Source: decode.Source(m.GetMetadata()),
		HandshakeTimeout: m.GetTransportSocketConnectTimeout().AsDuration(), outer: outerHash(m),
	}
	var err error
	if c.Match, err = chainMatch(m.GetFilterChainMatch()); err != nil {
		return nil, fmt.Errorf("filter_chain_match.%w", err)
	}
	if err := b.networkFilters(c, m.GetFilters()); err != nil {
		return nil, err
	}
	if c.TLS, err = b.downstreamTLS(c, m.GetTransportSocket()); err != nil {
		return nil, fmt.Errorf("transport_socket: %w", err)
	}
	return c, nil
}

func chainMatch(m *listenerv3.FilterChainMatch) (out ChainMatch, err error) {
	port := m.GetDestinationPort().GetValue()
	if port > math.MaxUint16 {
		return out, fmt.Errorf("destination_port: %d is no port", port)
	}
	out.Port = uint16(port)
	out.Transport, out.Protocols = m.GetTransportProtocol(), m.GetApplicationProtocols()
	if out.Destinations, err = decode.Prefixes(m.GetPrefixRanges()); err != nil {
		return out, fmt.Errorf("prefix_ranges%w", err)
	}
	if out.DirectSource, err = decode.Prefixes(m.GetDirectSourcePrefixRanges()); err != nil {
		return out, fmt.Errorf("direct_source_prefix_ranges%w", err)
	}
	if out.Sources, err = decode.Prefixes(m.GetSourcePrefixRanges()); err != nil {
		return out, fmt.Errorf("source_prefix_ranges%w", err)
	}
	for _, p := range m.GetSourcePorts() {
		if p == 0 || p > math.MaxUint16 {
			return out, fmt.Errorf("source_ports: %d is no port", p)
		}
		out.SourcePorts = append(out.SourcePorts, uint16(p))
	}
	for _, n := range m.GetServerNames() {
		out.ServerNames = append(out.ServerNames, strings.ToLower(n))
	}
	switch m.GetSourceType() {
	case listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK:
		out.SourceType = SourceLocal
	case listenerv3.FilterChainMatch_EXTERNAL:
		out.SourceType = SourceExternal
	}
	return out, checkServerNames(out.ServerNames)
}

// downstreamTLS reads a chain's transport socket; nil for plaintext.
func (b *builder) downstreamTLS(c *FilterChain, m *corev3.TransportSocket) (*TLS, error) {
	if m == nil {
		return nil, nil
	}
	a := m.GetTypedConfig()
	switch a.GetTypeUrl() {
	case "":
		if m.GetName() == "envoy.transport_sockets.raw_buffer" {
			return nil, nil
		}
	case strict.Prefix + "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer":
		return nil, strict.Unmarshal(a, &rawbufferv3.RawBuffer{})
	case strict.Prefix + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext":
		var ctx tlsv3.DownstreamTlsContext
		if err := strict.Unmarshal(a, &ctx); err != nil {
			return nil, err
		}
		if common := ctx.GetCommonTlsContext(); common != nil && c.PeerExchange() == nil {
			common.AlpnProtocols = decode.WithoutPeerExchange(common.GetAlpnProtocols())
		}
		s, err := b.keeper.Server(&ctx, decode.String)
		if err != nil {
			return nil, err
		}
		c.needs.secrets = append(c.needs.secrets, s.Wants...)
		return &TLS{
			Config: s.Config, RequireClientCert: s.RequireClient, ALPN: s.ALPN, Ready: s.Ready,
			Own:             func() *x509.Certificate { return s.Leaf() },
			AcceptUntrusted: !s.Verifies,
		}, nil
	}
	return nil, fmt.Errorf("%q (%s) is not supported", m.GetName(), a.GetTypeUrl())
}
