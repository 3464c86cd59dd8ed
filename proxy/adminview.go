// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/proxy/admin"
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

// Explain says what would become of a request.
func (v adminView) Explain(json.RawMessage) (any, error) {
	return nil, errors.New("explain is not available in this proxy")
}
