// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
)

// Router stands for the end of a chain: l7 itself forwards. Its settings are in
// config.HTTP.Router.
type Router struct{ filter.Pass }

// ALPN is istio.alpn. The names offered upstream follow from the HTTP version
// spoken there (upstream.Transport.ALPNHTTP1 and ALPNHTTP2), so that nothing is
// left to do for a request.
type ALPN struct{ filter.Pass }

// GRPCStats has the messages of gRPC calls counted, for istio.stats.
type GRPCStats struct{ filter.Pass }

// OnRequest asks for it.
func (GRPCStats) OnRequest(x *filter.Exchange) *fault.Fault {
	x.CountMessages = x.GRPC
	return nil
}
