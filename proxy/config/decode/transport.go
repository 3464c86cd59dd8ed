// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/proxy/config/secrets"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/peerexchange"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// Names that Istio's proxies offer for HTTP inside the mesh, by version: what
// the filter istio.alpn sets in Envoy.
var (
	istioHTTP1 = []string{"istio-http/1.1", "istio", "http/1.1"}
	istioHTTP2 = []string{"istio-h2", "istio", "h2"}
)

// Transports reads transport sockets of clusters.
type Transports struct {
	Keeper *secrets.Keeper
	// cache makes equal contexts one configuration, by which connections that are
	// open are known to be still good.
	cache map[cacheKey]*secrets.Client
}

type cacheKey struct {
	context string
	autoSAN bool
}

// Forget drops what is remembered of contexts but those of the given clusters.
func (t *Transports) Forget(live []*Cluster) {
	used := map[any]bool{}
	for _, c := range live {
		for i := range c.Spec.Transports {
			used[c.Spec.Transports[i].TLS] = true
		}
		used[c.Spec.Default.TLS] = true
	}
	for k, c := range t.cache {
		if !used[c.Config] {
			delete(t.cache, k)
		}
	}
}

// Remembered is how many contexts are.
func (t *Transports) Remembered() int { return len(t.cache) }

func (d *Clusters) transports(c *Cluster, m *clusterv3.Cluster) (err error) {
	autoSAN := false
	if a, ok := m.GetTypedExtensionProtocolOptions()[httpOptions]; ok {
		var o httpv3.HttpProtocolOptions
		if err := strict.Unmarshal(a, &o); err != nil {
			return err
		}
		autoSAN = o.GetUpstreamHttpProtocolOptions().GetAutoSanValidation()
	}
	t := &d.Transports
	if c.Spec.Default, err = t.socket(c, m.GetTransportSocket(), autoSAN); err != nil {
		return fmt.Errorf("transport_socket: %w", err)
	}
	for i, tm := range m.GetTransportSocketMatches() {
		tr, err := t.socket(c, tm.GetTransportSocket(), autoSAN)
		if err != nil {
			return fmt.Errorf("transport_socket_matches[%d] %q: %w", i, tm.GetName(), err)
		}
		tr.Name = tm.GetName()
		if tr.Match, err = texts(tm.GetMatch()); err != nil {
			return fmt.Errorf("transport_socket_matches[%d].match: %w", i, err)
		}
		c.Spec.Transports = append(c.Spec.Transports, tr)
	}
	return nil
}

func (t *Transports) socket(c *Cluster, m *corev3.TransportSocket, autoSAN bool) (tr upstream.Transport, err error) {
	if m == nil {
		return tr, nil
	}
	tr.Name = m.GetName()
	a := m.GetTypedConfig()
	if a == nil {
		if m.GetName() == "envoy.transport_sockets.raw_buffer" {
			return tr, nil
		}
		return tr, fmt.Errorf("%q: typed_config is missing", m.GetName())
	}
	switch a.GetTypeUrl() {
	case strict.Prefix + "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer":
		return tr, strict.Unmarshal(a, &rawbufferv3.RawBuffer{})
	case strict.Prefix + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext":
		return tr, t.tls(&tr, c, a, autoSAN)
	case strict.Prefix + "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport":
		var p proxyprotov3.ProxyProtocolUpstreamTransport
		if err := strict.Unmarshal(a, &p); err != nil {
			return tr, err
		}
		inner, err := t.socket(c, p.GetTransportSocket(), autoSAN)
		if err != nil {
			return tr, fmt.Errorf("transport_socket: %w", err)
		}
		if inner.ProxyProtocol != 0 {
			return tr, errors.New("PROXY protocol inside PROXY protocol")
		}
		inner.ProxyProtocol = 1
		if p.GetConfig().GetVersion() == corev3.ProxyProtocolConfig_V2 {
			inner.ProxyProtocol = 2
		}
		return inner, nil
	}
	return tr, fmt.Errorf("%q (%s) is not supported", m.GetName(), a.GetTypeUrl())
}

func (t *Transports) tls(tr *upstream.Transport, c *Cluster, a *anypb.Any, autoSAN bool) error {
	key := cacheKey{string(a.GetValue()), autoSAN}
	client := t.cache[key]
	if client == nil {
		var m tlsv3.UpstreamTlsContext
		err := strict.Unmarshal(a, &m)
		if err != nil {
			return err
		}
		if client, err = t.Keeper.Client(&m, autoSAN, String); err != nil {
			return err
		}
		if t.cache == nil {
			t.cache = map[cacheKey]*secrets.Client{}
		}
		t.cache[key] = client
	}
	tr.TLS, tr.Mutual, tr.Broken = client.Config, client.Mutual, client.Ready
	tr.ALPN = client.ALPN
	if c.Spec.PeerExchange == nil {
		tr.ALPN = WithoutPeerExchange(tr.ALPN)
	}
	switch {
	case slices.Contains(client.ALPN, "istio") && !c.Spec.NoALPN:
		tr.ALPNHTTP1, tr.ALPNHTTP2 = istioHTTP1, istioHTTP2
	case len(client.ALPN) == 0:
		tr.ALPNHTTP1, tr.ALPNHTTP2 = []string{"http/1.1"}, []string{"h2"}
	}
	for _, w := range client.Wants {
		if !slices.Contains(c.Wants, w) {
			c.Wants = append(c.Wants, w)
		}
	}
	return nil
}

// WithoutPeerExchange returns the protocols without istio-peer-exchange, which must
// not be agreed on by whoever does not send the preamble that goes with it.
func WithoutPeerExchange(alpn []string) []string {
	if !slices.Contains(alpn, peerexchange.ALPN) {
		return alpn
	}
	return slices.DeleteFunc(slices.Clone(alpn), func(p string) bool { return p == peerexchange.ALPN })
}

// texts reads a Struct of strings, as endpoint metadata is matched by.
func texts(s *structpb.Struct) (map[string]string, error) {
	if len(s.GetFields()) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(s.GetFields()))
	for k, v := range s.GetFields() {
		switch v := v.GetKind().(type) {
		case *structpb.Value_StringValue:
			out[k] = v.StringValue
		case *structpb.Value_BoolValue:
			out[k] = fmt.Sprint(v.BoolValue)
		case *structpb.Value_NumberValue:
			out[k] = fmt.Sprint(v.NumberValue)
		default:
			return nil, fmt.Errorf("%q: only strings, numbers and booleans are supported", k)
		}
	}
	return out, nil
}
