// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// delta is the incremental dialect. Requests change a subscription, responses a set.
type delta struct {
	grpc interface {
		Recv() (*discoveryv3.DeltaDiscoveryRequest, error)
		Send(*discoveryv3.DeltaDiscoveryResponse) error
	}
	onlyType string // on a service of one type, which requests may leave out
}

func (d *delta) recv() (*request, error) {
	m, err := d.grpc.Recv()
	if err != nil {
		return nil, err
	}
	r := &request{
		node: m.GetNode(), typeURL: m.GetTypeUrl(), nonce: m.GetResponseNonce(),
		nack: m.GetErrorDetail() != nil, detail: m.GetErrorDetail().GetMessage(),
		add: m.GetResourceNamesSubscribe(), remove: m.GetResourceNamesUnsubscribe(), initial: m.GetInitialResourceVersions(),
	}
	if r.typeURL == "" {
		r.typeURL = d.onlyType
	}
	return r, nil
}

func (d *delta) send(response any) error {
	return d.grpc.Send(response.(*discoveryv3.DeltaDiscoveryResponse))
}

// again: a nonce is in answers alone.
func (d *delta) again(w *watch, r *request) bool {
	return r.nack || slices.Contains(w.refused, r.nonce)
}

// want: a first request without names means everything, unless the type is one of
// which only names are asked; subscribing to "*" and unsubscribing from it at once is how a
// client says "nothing yet". Unsubscribing comes last. A nonce does not matter here:
// a change of subscription is one, whatever it travels with.
func (d *delta) want(w *watch, r *request) (change, bool) {
	remove, unstar := strip(r.remove, nil)
	gone := make(map[string]struct{}, len(remove))
	for _, n := range remove {
		gone[n] = struct{}{}
	}
	asked := r.add
	_, star := strip(asked, nil)
	touched := star || unstar
	if !w.begun {
		w.begun, touched = true, true
		w.wildcard = len(asked) == 0 && !namedOnly(w.typeURL)
		w.initial = maps.Clone(r.initial)
	} else if len(w.initial) > 0 {
		again, _ := strip(r.add, gone)
		w.askedAgain(again)
	}
	w.wildcard = (w.wildcard || star) && !unstar
	if !w.wildcard {
		// What the client holds, it wants: the names by which it once asked may be others.
		asked = slices.Concat(asked, sortedKeys(r.initial))
	}
	ch := change{wildcard: w.wildcard}
	ch.add, _ = strip(asked, gone)
	for _, n := range ch.add {
		w.names[n] = struct{}{}
	}
	for _, n := range remove {
		delete(w.again, n)
		if _, ok := w.names[n]; ok {
			delete(w.names, n)
			ch.remove = append(ch.remove, n)
		}
	}
	return ch, touched || len(ch.add) > 0 || len(ch.remove) > 0
}

// render leaves out what a reconnecting client holds in the same version, and
// removes what it holds and a Full update lacks. A Full update is sent even if nothing remains of it.
func (d *delta) render(w *watch, u *Update, nonce string) any {
	m := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: u.TypeURL, Nonce: nonce, SystemVersionInfo: u.Version, RemovedResources: u.Removed,
		Resources: make([]*discoveryv3.Resource, 0, len(u.Resources)),
	}
	for i := range u.Resources {
		r := &u.Resources[i]
		if len(w.initial) > 0 {
			held, ok := w.initial[r.Name]
			delete(w.initial, r.Name)
			if ok && held != "" && held == r.Version && !w.isAskedAgain(r) {
				continue
			}
		}
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: r.Name, Version: r.Version, Aliases: r.Aliases, Resource: r.Body})
	}
	for _, n := range u.Removed {
		delete(w.initial, n)
	}
	if u.Full {
		// Removing an extension configuration would take a running filter away, and
		// routes and endpoints go with their listener or cluster.
		if !namedOnly(w.typeURL) {
			m.RemovedResources = slices.Concat(m.RemovedResources, sortedKeys(w.initial))
		}
		w.initial, w.again = nil, nil
	}
	if len(m.Resources) == 0 && len(m.RemovedResources) == 0 && !u.Full {
		return nil
	}
	return m
}
