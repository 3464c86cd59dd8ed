// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/mesh"
)

// An Entry is one way in which a connection may come in.
type Entry struct {
	Transport string
	ALPN      []string
	MTLS      bool
	HTTP      bool
}

// What callers offer, by what they are.
var (
	offersHTTP = []string{"istio-http/1.0", "istio-http/1.1", "istio-h2"}
	offersMesh = []string{"istio-peer-exchange", "istio"}
	offersAny  = []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}
)

// Entries is Istio's table of filter chains by mutual TLS mode and protocol.
// TLS that is not the mesh's passes through to the application under PERMISSIVE,
// unless the port is known to carry HTTP: then nobody takes it.
func Entries(mode intent.MTLSMode, p mesh.Protocol, plainHTTP []string) []Entry {
	auto, http := p == mesh.Unset, p.IsHTTP()
	switch {
	case mode == intent.MTLSStrict && auto:
		return []Entry{{"tls", offersHTTP, true, true}, {"tls", nil, true, false}}
	case mode == intent.MTLSStrict:
		return []Entry{{"tls", nil, true, http}}
	case mode == intent.MTLSDisable && auto:
		return []Entry{{"raw_buffer", plainHTTP, false, true}, {"", nil, false, false}}
	case mode == intent.MTLSDisable && http:
		return []Entry{{"raw_buffer", nil, false, true}}
	case mode == intent.MTLSDisable:
		return []Entry{{"", nil, false, false}}
	case auto:
		return []Entry{
			{"tls", offersHTTP, true, true}, {"raw_buffer", plainHTTP, false, true},
			{"tls", offersMesh, true, false}, {"raw_buffer", nil, false, false}, {"tls", nil, false, false},
		}
	case http:
		return []Entry{{"tls", offersAny, true, true}, {"raw_buffer", nil, false, true}}
	}
	return []Entry{{"tls", offersAny, true, false}, {"tls", nil, false, false}, {"raw_buffer", nil, false, false}}
}

// Inspects says what must look at first bytes so that one of kinds can be chosen.
func Inspects(kinds []Entry) (forTLS, forHTTP bool) {
	for _, k := range kinds {
		forTLS = forTLS || k.Transport == "tls"
		forHTTP = forHTTP || k.Transport == "raw_buffer" && len(k.ALPN) > 0
	}
	return forTLS, forHTTP
}
