// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// typeWrapper is a body that holds a resource together with its name.
const typeWrapper = typePrefix + "envoy.service.discovery.v3.Resource"

// askSotW asks in the state-of-the-world dialect, where each request repeats the
// whole subscription; so an answer carries its changes, too.
type askSotW struct {
	grpc grpc.BidiStreamingClient[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]
	name func(*anypb.Any) (string, error)
}

func openSotW(ctx context.Context, conn grpc.ClientConnInterface, name func(*anypb.Any) (string, error)) (*askSotW, error) {
	g, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	return &askSotW{grpc: g, name: name}, err
}

func (a *askSotW) recv() (*Update, error) {
	m, err := a.grpc.Recv()
	if err != nil {
		return nil, err
	}
	u := &Update{TypeURL: m.GetTypeUrl(), Version: m.GetVersionInfo(), Nonce: m.GetNonce()}
	u.Resources = make([]Resource, len(m.GetResources()))
	for i, body := range m.GetResources() {
		u.Resources[i] = a.unwrap(body)
	}
	return u, nil
}

// unwrap finds the name of a body. Without one the resource is refused later, by name "".
func (a *askSotW) unwrap(body *anypb.Any) Resource {
	if body.GetTypeUrl() == typeWrapper {
		var w discoveryv3.Resource
		if proto.Unmarshal(body.GetValue(), &w) == nil {
			return Resource{Name: w.GetName(), Version: w.GetVersion(), Aliases: w.GetAliases(), Body: w.GetResource()}
		}
	}
	name, err := a.name(body)
	if err != nil {
		name = ""
	}
	return Resource{Name: name, Body: body}
}

// firstField reads field 1 of a message as a string.
func firstField(body *anypb.Any) (string, error) {
	b := body.GetValue()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", protowire.ParseError(n)
		}
		b = b[n:]
		if num == 1 && typ == protowire.BytesType {
			v, n := protowire.ConsumeBytes(b)
			return string(v), protowire.ParseError(n)
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return "", protowire.ParseError(n)
		}
		b = b[n:]
	}
	return "", errors.New("the resource has no name in field 1")
}

func (a *askSotW) ask(t *topic, node *corev3.Node) any {
	if t.begun && len(t.add) == 0 && len(t.drop) == 0 || !t.begun && t.idle() {
		return nil
	}
	m := a.request(t)
	m.Node = node
	return m
}

func (a *askSotW) answer(t *topic, u *Update, detail string) any {
	if u.Nonce != t.newest {
		return nil // only the newest response can be answered
	}
	anew := t.nonce == u.Nonce
	t.nonce = u.Nonce
	switch {
	case detail == "" && t.version != u.Version:
		t.before, t.version = t.version, u.Version
	case detail != "" && t.version == u.Version && anew:
		t.version = t.before
	}
	m := a.request(t)
	if detail != "" {
		m.ErrorDetail = refusal(detail).Proto()
	}
	return m
}

func (a *askSotW) request(t *topic) *discoveryv3.DiscoveryRequest {
	t.begun = true
	clear(t.add)
	clear(t.drop)
	return &discoveryv3.DiscoveryRequest{TypeUrl: t.typeURL, ResourceNames: t.list(), ResponseNonce: t.nonce, VersionInfo: t.version}
}

func (a *askSotW) send(request any) error {
	return a.grpc.Send(request.(*discoveryv3.DiscoveryRequest))
}
