// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/control/envoy/cluster"
	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/filter"
	"github.com/meltemi/meltemi/control/envoy/rbac"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/envoy/transport"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// secure sets the transport: what the rule says, else mutual TLS towards
// endpoints that are known to speak it.
func (b *Backend) secure(c *derive.Context, m *clusterv3.Cluster, k clusterKey, s *registry.Service, port registry.Port, p *sight.Policy, version cluster.Version) transport.Verifies {
	t := p.TLS
	speaks := transport.Bytes
	switch {
	case version == cluster.HTTP2:
		speaks = transport.HTTP2
	case version == cluster.HTTP1 && port.Protocol.IsHTTP():
		speaks = transport.HTTP1
	}
	sni := k.Name.SNI()
	exchange := k.PeerExchange && speaks == transport.Bytes && !s.External
	own := func(names []string) *corev3.TransportSocket {
		if exchange {
			m.Filters = []*clusterv3.Filter{filter.ExchangeUpstream()}
		}
		return transport.Announced(p.ProxyProtocol, transport.Client(names, sni, speaks, exchange))
	}
	plain := transport.Announced(p.ProxyProtocol, transport.Plain())
	switch {
	case t == nil && (!b.Settings(c).AutoMTLS || s.External || m.GetType() == clusterv3.Cluster_ORIGINAL_DST):
	case t == nil:
		m.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{
			{Name: "tlsMode-istio", Match: emit.Texts(map[string]string{"tlsMode": "istio"}), TransportSocket: own(b.peers(c, s, port.Number))},
			{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: plain},
		}
		return transport.Verifies{}
	case t.Mode == intent.TLSMesh:
		names := t.SubjectAltNames
		if len(names) == 0 {
			names = b.peers(c, s, port.Number)
		}
		if t.SNI != "" {
			sni = t.SNI
		}
		m.TransportSocket = own(names)
		return transport.Verifies{}
	case t.Mode == intent.TLSSimple, t.Mode == intent.TLSMutual:
		http := cluster.CarriesHTTP(port.Protocol) || port.Protocol == mesh.HTTPS
		socket, verifies := transport.ForRule(t, transport.Endpoint{Host: string(s.Host), HTTP: http, H2: version == cluster.HTTP2, Own: k.Own})
		m.TransportSocket = transport.Announced(p.ProxyProtocol, socket)
		return verifies
	}
	m.TransportSocket = transport.Announced(p.ProxyProtocol, nil)
	return transport.Verifies{}
}

// peers lists who may answer for a service port: its endpoints' identities in every trust domain of the
// mesh, and the names that its objects add. With none, anybody of the mesh may.
func (b *Backend) peers(c *derive.Context, s *registry.Service, port int) []string {
	all := append(slices.Clone(s.SubjectAltNames), b.identities.Get(c, registry.PortKey{Service: s.ServiceKey, Port: port})...)
	slices.Sort(all)
	return slices.Compact(all)
}

func (b *Backend) identitiesOf(c *derive.Context, k registry.PortKey) []string {
	trust := trustOf(b.Settings(c))
	var all []string
	for _, e := range b.Facts.Endpoints.Get(c, k).List {
		if !e.MTLS || e.Identity.IsZero() {
			continue
		}
		for _, td := range append([]mesh.TrustDomain{trust.Domain}, trust.Aliases...) {
			id := e.Identity
			id.TrustDomain = td
			all = append(all, id.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func trustOf(s *intent.Settings) rbac.Trust {
	return rbac.Trust{Domain: s.TrustDomain, Aliases: s.TrustAliases}
}

// trusted are the trust domains whose workloads may call.
func trusted(s *intent.Settings) []mesh.TrustDomain {
	return append([]mesh.TrustDomain{s.TrustDomain}, s.TrustAliases...)
}

// acceptsMTLS: an endpoint whose policy disables mutual TLS is called in
// plaintext, whatever its proxy could do.
func (b *Backend) acceptsMTLS(c *derive.Context, e *registry.Endpoint, port int) bool {
	return b.peerOf.Get(c, e.Workload).ForPort(port) != intent.MTLSDisable
}

// peerAuthOf is the mutual TLS that a workload demands.
func (b *Backend) peerAuthOf(c *derive.Context, k source.Key) *intent.PeerAuth {
	subject := sight.Nobody(k.Namespace)
	if w := b.Facts.Workload.Get(c, k); w != nil {
		subject = intent.NewSubject(w.Namespace, w.Labels)
	}
	return b.Wishes.PeerAuth.Get(c, subject)
}
