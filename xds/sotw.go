// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// sotw is the state-of-the-world dialect. Each request holds the whole
// subscription; where absence means removal, each response holds the whole set.
type sotw struct {
	grpc interface {
		Recv() (*discoveryv3.DiscoveryRequest, error)
		Send(*discoveryv3.DiscoveryResponse) error
	}
	onlyType string // on a service of one type, which requests may leave out
}

func (d *sotw) recv() (*request, error) {
	m, err := d.grpc.Recv()
	if err != nil {
		return nil, err
	}
	r := &request{
		node: m.GetNode(), typeURL: m.GetTypeUrl(), nonce: m.GetResponseNonce(),
		nack: m.GetErrorDetail() != nil, detail: m.GetErrorDetail().GetMessage(), names: m.GetResourceNames(), version: m.GetVersionInfo(),
	}
	if r.typeURL == "" {
		r.typeURL = d.onlyType
	}
	return r, nil
}

func (d *sotw) send(response any) error {
	return d.grpc.Send(response.(*discoveryv3.DiscoveryResponse))
}

// again: each request names the newest response, so that only what it says of the version tells a changed answer.
func (d *sotw) again(w *watch, r *request) bool {
	return r.nonce == w.last && (r.nack || slices.Contains(w.refused, r.nonce) && r.version == w.version)
}

// want: a request that answers another response than the newest is stale, and
// the client will say again what it wants. One without a nonce begins anew.
func (d *sotw) want(w *watch, r *request) (change, bool) {
	anew := !w.begun || r.nonce == ""
	if !anew && r.nonce != w.last {
		return change{}, false
	}
	w.begun = true
	names, star := strip(r.names, nil)
	everything := star || (len(r.names) == 0 && !w.named && !namedOnly(w.typeURL))
	w.named = w.named || len(r.names) > 0

	now := make(map[string]struct{}, len(names))
	ch := change{wildcard: everything}
	for _, n := range names {
		now[n] = struct{}{}
		if _, had := w.names[n]; anew || !had {
			ch.add = append(ch.add, n)
		}
	}
	for _, n := range sortedKeys(w.names) {
		if _, still := now[n]; !still {
			ch.remove = append(ch.remove, n)
			if !everything {
				delete(w.state, n)
			}
		}
	}
	tell := anew || len(ch.add) > 0 || len(ch.remove) > 0 || everything != w.wildcard
	if w.wildcard && !everything {
		for n := range w.state { // keep what is asked by name
			if _, still := now[n]; !still {
				delete(w.state, n)
			}
		}
	}
	w.names, w.wildcard = now, everything
	if len(now) == 0 && !everything && namedOnly(w.typeURL) {
		w.gone = true
		return ch, len(ch.remove) > 0
	}
	return ch, tell
}

// render sends the complete set where the protocol wants it, else what changed.
// Routes and endpoints cannot be removed in this dialect; they go with their parents.
func (d *sotw) render(w *watch, u *Update, nonce string) any {
	m := &discoveryv3.DiscoveryResponse{TypeUrl: u.TypeURL, Nonce: nonce, VersionInfo: u.Version}
	if !fullState(w.typeURL, w.wildcard) {
		if len(u.Resources) == 0 && !u.Full {
			return nil
		}
		m.Resources = make([]*anypb.Any, 0, len(u.Resources))
		for i := range u.Resources {
			m.Resources = append(m.Resources, u.Resources[i].Body)
		}
		return m
	}
	if u.Full || w.state == nil {
		w.state = make(map[string]Resource, len(u.Resources))
	}
	for _, r := range u.Resources {
		w.state[r.Name] = r
	}
	for _, n := range u.Removed {
		delete(w.state, n)
	}
	m.Resources = make([]*anypb.Any, 0, len(w.state))
	for _, n := range sortedKeys(w.state) {
		m.Resources = append(m.Resources, w.state[n].Body)
	}
	return m
}
