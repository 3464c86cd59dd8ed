// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

// askDelta asks in the incremental dialect.
type askDelta struct {
	grpc grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
}

func openDelta(ctx context.Context, conn grpc.ClientConnInterface) (*askDelta, error) {
	g, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	return &askDelta{grpc: g}, err
}

func (a *askDelta) recv() (*Update, error) {
	m, err := a.grpc.Recv()
	if err != nil {
		return nil, err
	}
	u := &Update{TypeURL: m.GetTypeUrl(), Version: m.GetSystemVersionInfo(), Nonce: m.GetNonce(), Removed: m.GetRemovedResources()}
	u.Resources = make([]Resource, len(m.GetResources()))
	for i, r := range m.GetResources() {
		u.Resources[i] = Resource{Name: r.GetName(), Version: r.GetVersion(), Aliases: r.GetAliases(), Body: r.GetResource()}
	}
	return u, nil
}

// ask: a type's first request holds the subscription and the versions we have,
// later ones what has changed.
func (a *askDelta) ask(t *topic, node *corev3.Node) any {
	m := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t.typeURL, Node: node}
	if !t.begun {
		if t.idle() {
			return nil
		}
		t.begun = true
		m.ResourceNamesSubscribe = t.list()
		m.InitialResourceVersions = make(map[string]string, len(t.known))
		for n, h := range t.known {
			m.InitialResourceVersions[n] = h.version
		}
	} else {
		if len(t.add) == 0 && len(t.drop) == 0 {
			return nil
		}
		m.ResourceNamesSubscribe, m.ResourceNamesUnsubscribe = sortedKeys(t.add), sortedKeys(t.drop)
	}
	clear(t.add)
	clear(t.drop)
	return m
}

func (a *askDelta) answer(t *topic, u *Update, detail string) any {
	m := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t.typeURL, ResponseNonce: u.Nonce}
	if detail != "" {
		m.ErrorDetail = refusal(detail).Proto()
	}
	return m
}

func (a *askDelta) send(request any) error {
	return a.grpc.Send(request.(*discoveryv3.DeltaDiscoveryRequest))
}
