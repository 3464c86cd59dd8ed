// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/proxy/admin"
	"github.com/meltemi/meltemi/proxy/explain"
)

// adminView shows the proxy to its admin pages.
type adminView struct{ *Proxy }

var _ admin.Proxy = adminView{}

// Draining is true once connections are asked to end.
func (v adminView) Draining() bool { return v.draining.Load() }

// ConfigDump is all configuration in Envoy's form.
func (v adminView) ConfigDump(endpoints bool) (proto.Message, error) {
	return v.store.ConfigDump(endpoints)
}

// Sockets are the open listeners.
func (v adminView) Sockets() []admin.Socket {
	var out []admin.Socket
	for _, l := range v.store.Snapshot().Listeners {
		if addrs := v.manager.Addrs(l.Name); len(addrs) > 0 {
			out = append(out, admin.Socket{Name: l.Name, Addrs: addrs})
		}
	}
	return out
}

// Certificates describes the workload's own.
func (v adminView) Certificates() []admin.Certificate {
	svid := v.identity.Current()
	if svid == nil {
		return nil
	}
	leaf := svid.Leaf()
	return []admin.Certificate{{
		Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Serial: leaf.SerialNumber.Text(16),
		URI: v.cfg.Node.Identity().String(), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}}
}

// Drain stops taking connections.
func (v adminView) Drain(inboundOnly bool) {
	if !inboundOnly {
		v.draining.Store(true)
	}
	v.manager.Drain(inboundOnly)
}

// explainTimeout bounds looking names up for an explanation.
const explainTimeout = 5 * time.Second

// Explain says what would become of a request.
func (v adminView) Explain(query json.RawMessage) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), explainTimeout)
	defer cancel()
	w := explain.World{Snapshot: v.store.Snapshot(), Clusters: v.clusters, Lookup: v.lookup, Unopened: v.manager.Unopened()}
	if v.demand != nil {
		w.Demand = v.explainDemand
	}
	if v.identity.Current() != nil {
		w.Identity = v.cfg.Node.Identity().String()
	}
	return explain.Ask(ctx, w, query)
}

// lookup answers as the workload is answered: names of the mesh first.
func (v adminView) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if v.dns != nil {
		if addrs, ok := v.dns.Lookup(host); ok {
			return addrs, nil
		}
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}
