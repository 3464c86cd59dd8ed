// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"math/bits"

	"github.com/meltemi/meltemi/proxy/l7/mirror"
	"github.com/meltemi/meltemi/proxy/l7/upload"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// mirror sends copies of the request where the route wants them. Nobody waits
// for them. Only a request whose body is small, or none, is copied: one that is
// still coming would have to be kept for it.
func (x *exchange) mirror() {
	mirrors := x.decision.Route.Forward.Mirrors
	if len(mirrors) == 0 || x.body.State() == upload.Tunnelled {
		return
	}
	server := x.site.server
	for i := range mirrors {
		m := &mirrors[i]
		// Not the bits that have chosen the cluster, or one choice would get all copies.
		random := bits.RotateLeft64(x.Random, 17+i)
		if f := m.Fraction; f != nil && random%uint64(f.Per) >= uint64(f.Of) {
			continue
		}
		cluster := x.table.Refs[x.decision.Route.Mirrors[i]].Load()
		if cluster == nil || x.body.State() == upload.Pumped {
			server.skippedMirrors.Inc()
			continue
		}
		if server.mirrors.Add(1) > server.cfg.MaxMirrors {
			server.mirrors.Add(-1)
			server.skippedMirrors.Inc()
			continue
		}
		body, trailer := x.body.Whole()
		s := mirror.New(x.Request, body, trailer, m, x.limits.Total,
			upstream.Request{Version: x.Request.Version, OriginalDst: x.Conn.OriginalDst, Client: x.Conn.Remote})
		go func() {
			defer server.mirrors.Add(-1)
			s.Send(cluster)
		}()
	}
}
