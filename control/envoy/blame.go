// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/xds"
)

// Blames reports whether an object that was read for a resource also has a part in it, so that it is not in force where the
// resource is refused. A resource names those it was made from; one that names none may be anybody's. What listeners enforce and
// do not name is taken to be in all of them: rather a policy that is in force is said not to be than the other way round.
func Blames(r *xds.Resource, object source.Key) bool {
	switch object.Kind {
	case source.KindAuthorizationPolicy, source.KindPeerAuthentication, source.KindTelemetry:
		if r.Body.GetTypeUrl() == TypeListener {
			return true
		}
	}
	named := false
	for _, md := range metadataOf(r) {
		for _, v := range md.GetFilterMetadata()[emit.Meltemi].GetFields()["from"].GetListValue().GetValues() {
			named = true
			if of, _, _ := strings.Cut(v.GetStringValue(), " "); of == object.String() {
				return true
			}
		}
	}
	return !named
}

// Refers reports whether a listener takes its routes from the table of that name.
func Refers(listener *xds.Resource, table string) bool {
	var l listenerv3.Listener
	if listener.Body.UnmarshalTo(&l) != nil {
		return false
	}
	for _, chain := range append(slices.Clone(l.GetFilterChains()), l.GetDefaultFilterChain()) {
		for _, f := range chain.GetFilters() {
			var m hcmv3.HttpConnectionManager
			if f.GetTypedConfig().MessageIs(&m) && f.GetTypedConfig().UnmarshalTo(&m) == nil && m.GetRds().GetRouteConfigName() == table {
				return true
			}
		}
	}
	return false
}

// metadataOf is all metadata in which a resource may name objects.
func metadataOf(r *xds.Resource) (all []*corev3.Metadata) {
	m, err := r.Body.UnmarshalNew()
	if err != nil {
		return nil
	}
	switch m := m.(type) {
	case *clusterv3.Cluster:
		all = append(all, m.GetMetadata())
	case *listenerv3.Listener:
		all = append(all, m.GetMetadata(), m.GetDefaultFilterChain().GetMetadata())
		for _, c := range m.GetFilterChains() {
			all = append(all, c.GetMetadata())
		}
	case *routev3.RouteConfiguration:
		for _, h := range m.GetVirtualHosts() {
			all = append(all, h.GetMetadata())
			for _, route := range h.GetRoutes() {
				all = append(all, route.GetMetadata())
			}
		}
	}
	return all
}
