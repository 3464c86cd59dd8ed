// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/meltemi/meltemi/certs"
)

// ConfigDump is what Envoy's /config_dump shows, with endpoints on request. What
// was refused is shown beside what is in force. Private keys are not shown.
func (s *Store) ConfigDump(endpoints bool) (*adminv3.ConfigDump, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := []proto.Message{s.bootstrapLocked(), s.clustersLocked()}
	if endpoints {
		parts = append(parts, s.endpointsLocked())
	}
	parts = append(parts, s.listenersLocked(), s.routesLocked(), s.secretsLocked())
	d := &adminv3.ConfigDump{}
	for _, p := range parts {
		a, err := anypb.New(p)
		if err != nil {
			return nil, fmt.Errorf("config_dump: %w", err)
		}
		d.Configs = append(d.Configs, a)
	}
	return d, nil
}

func (s *Store) bootstrapLocked() *adminv3.BootstrapConfigDump {
	n := s.cfg.Node
	node := &corev3.Node{Id: n.ID, Cluster: n.Cluster}
	if md, err := structpb.NewStruct(n.Metadata); err == nil && len(n.Metadata) > 0 {
		node.Metadata = md
	}
	return &adminv3.BootstrapConfigDump{Bootstrap: &bootstrapv3.Bootstrap{Node: node}}
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func (f *failure) state() *adminv3.UpdateFailureState {
	if f == nil {
		return nil
	}
	return &adminv3.UpdateFailureState{
		FailedConfiguration: redacted(f.raw), LastUpdateAttempt: stamp(f.at), Details: f.err.Error(), VersionInfo: f.version,
	}
}

func (s *Store) clustersLocked() *adminv3.ClustersConfigDump {
	d := &adminv3.ClustersConfigDump{}
	for _, name := range sortedKeys(s.clusters) {
		e := s.clusters[name]
		if e.activeRec.static {
			d.StaticClusters = append(d.StaticClusters, &adminv3.ClustersConfigDump_StaticCluster{
				Cluster: redacted(e.activeRec.raw), LastUpdated: stamp(e.activeRec.updated),
			})
			continue
		}
		show := func(r *record) *adminv3.ClustersConfigDump_DynamicCluster {
			return &adminv3.ClustersConfigDump_DynamicCluster{VersionInfo: r.version, Cluster: redacted(r.raw), LastUpdated: stamp(r.updated), ErrorState: e.failed.state()}
		}
		if e.active != nil || e.warming == nil {
			d.DynamicActiveClusters = append(d.DynamicActiveClusters, show(&e.activeRec))
			d.VersionInfo = max(d.VersionInfo, e.activeRec.version)
		}
		if e.warming != nil {
			d.DynamicWarmingClusters = append(d.DynamicWarmingClusters, show(&e.warmingRec))
		}
	}
	return d
}

func (s *Store) endpointsLocked() *adminv3.EndpointsConfigDump {
	d := &adminv3.EndpointsConfigDump{}
	for _, name := range sortedKeys(s.endpoints) {
		r := s.endpoints[name]
		d.DynamicEndpointConfigs = append(d.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{
			VersionInfo: r.version, EndpointConfig: redacted(r.raw), LastUpdated: stamp(r.updated), ErrorState: r.failed.state(),
		})
	}
	return d
}

func (s *Store) listenersLocked() *adminv3.ListenersConfigDump {
	d := &adminv3.ListenersConfigDump{}
	for _, name := range sortedKeys(s.listeners) {
		e := s.listeners[name]
		if e.activeRec.static {
			d.StaticListeners = append(d.StaticListeners, &adminv3.ListenersConfigDump_StaticListener{
				Listener: redacted(e.activeRec.raw), LastUpdated: stamp(e.activeRec.updated),
			})
			continue
		}
		failed := e.failed
		if failed == nil && e.active != nil {
			failed = s.unopened[name]
		}
		show := func(there bool, r *record) *adminv3.ListenersConfigDump_DynamicListenerState {
			if !there {
				return nil
			}
			d.VersionInfo = max(d.VersionInfo, r.version)
			return &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: r.version, Listener: redacted(r.raw), LastUpdated: stamp(r.updated)}
		}
		d.DynamicListeners = append(d.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{
			Name: name, ActiveState: show(e.active != nil, &e.activeRec), WarmingState: show(e.warming != nil, &e.warmingRec), ErrorState: failed.state(),
		})
	}
	return d
}

func (s *Store) routesLocked() *adminv3.RoutesConfigDump {
	d := &adminv3.RoutesConfigDump{}
	for _, name := range sortedKeys(s.routes) {
		e := s.routes[name]
		if e.raw == nil && e.failed == nil {
			continue
		}
		d.DynamicRouteConfigs = append(d.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
			VersionInfo: e.version, RouteConfig: redacted(e.raw), LastUpdated: stamp(e.updated), ErrorState: e.failed.state(),
		})
	}
	for _, name := range sortedKeys(s.listeners) {
		e := s.listeners[name]
		for _, m := range inlineRoutes(e.activeRec.raw) {
			d.StaticRouteConfigs = append(d.StaticRouteConfigs, &adminv3.RoutesConfigDump_StaticRouteConfig{RouteConfig: m, LastUpdated: stamp(e.activeRec.updated)})
		}
	}
	return d
}

// inlineRoutes are the route configurations inside a listener.
func inlineRoutes(raw *anypb.Any) []*anypb.Any {
	var l listenerv3.Listener
	if raw == nil || raw.UnmarshalTo(&l) != nil {
		return nil
	}
	var out []*anypb.Any
	for _, c := range append(slices.Clone(l.GetFilterChains()), l.GetDefaultFilterChain()) {
		for _, f := range c.GetFilters() {
			var m hcmv3.HttpConnectionManager
			if f.GetTypedConfig().MessageIs(&m) && f.GetTypedConfig().UnmarshalTo(&m) == nil && m.GetRouteConfig() != nil {
				if a, err := anypb.New(m.GetRouteConfig()); err == nil {
					out = append(out, a)
				}
			}
		}
	}
	return out
}

func (s *Store) secretsLocked() *adminv3.SecretsConfigDump {
	d := &adminv3.SecretsConfigDump{}
	if s.cfg.Identity != nil {
		if v := s.cfg.Identity.Current(); v != nil {
			d.DynamicActiveSecrets = append(d.DynamicActiveSecrets, identitySecrets(v)...)
		}
	}
	for _, name := range sortedKeys(s.secrets) {
		r := s.secrets[name]
		if r.static {
			d.StaticSecrets = append(d.StaticSecrets, &adminv3.SecretsConfigDump_StaticSecret{Name: name, Secret: redacted(r.raw), LastUpdated: stamp(r.updated)})
			continue
		}
		show := &adminv3.SecretsConfigDump_DynamicSecret{
			Name: name, VersionInfo: r.version, LastUpdated: stamp(r.updated), Secret: redacted(r.raw), ErrorState: r.failed.state(),
		}
		if r.raw == nil {
			d.DynamicWarmingSecrets = append(d.DynamicWarmingSecrets, show)
		} else {
			d.DynamicActiveSecrets = append(d.DynamicActiveSecrets, show)
		}
	}
	return d
}

// identitySecrets shows the workload's certificate as Istio's tools look for it.
func identitySecrets(v *certs.SVID) []*adminv3.SecretsConfigDump_DynamicSecret {
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	var out []*adminv3.SecretsConfigDump_DynamicSecret
	for _, m := range [...]*tlsv3.Secret{
		{Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(v.ChainPEM()), PrivateKey: inline([]byte("x")),
		}}},
		{Name: "ROOTCA", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(v.RootPEM)}}},
	} {
		if a, err := anypb.New(m); err == nil {
			out = append(out, &adminv3.SecretsConfigDump_DynamicSecret{
				Name: m.GetName(), Secret: redacted(a), LastUpdated: stamp(v.Leaf().NotBefore), VersionInfo: v.Leaf().SerialNumber.Text(16),
			})
		}
	}
	return out
}
