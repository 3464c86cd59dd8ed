// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	rbachttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
)

// The types of HTTP filters, without the prefix of type URLs.
const (
	typeRouter       = "envoy.extensions.filters.http.router.v3.Router"
	typeHTTPRBAC     = "envoy.extensions.filters.http.rbac.v3.RBAC"
	typeFault        = "envoy.extensions.filters.http.fault.v3.HTTPFault"
	typeCORS         = "envoy.extensions.filters.http.cors.v3.Cors"
	typeGRPCStats    = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"
	typeALPN         = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
	typePeerMetadata = "io.istio.http.peer_metadata.Config"
)

// httpFilters reads the HTTP filters and builds their chain.
func (b *builder) httpFilters(h *HTTP, m *hcmv3.HttpConnectionManager) error {
	list := m.GetHttpFilters()
	var entries []filter.Entry
	access := filter.Open
	for i, f := range list {
		name, object, err := strict.TypeOf(f.GetTypedConfig())
		last := i == len(list)-1
		switch {
		case err != nil:
		case name == typeRouter && !last:
			err = errors.New("the router must be the last filter")
		case name == typeRouter:
			err = b.router(h, f.GetTypedConfig())
		case last:
			err = errors.New("the last filter must be the router")
		default:
			var made filter.Filter
			if made, err = b.httpFilter(h, name, f.GetTypedConfig(), object); made != nil {
				entries = append(entries, filter.Entry{Name: f.GetName(), Filter: made, Disabled: f.GetDisabled()})
			} else if err == nil && !f.GetIsOptional() {
				err = fmt.Errorf("type %q is not supported", name)
			}
			if name == typeHTTPRBAC {
				access = filter.Guarded
			}
		}
		if err != nil {
			return fmt.Errorf("http_filters[%d] %q: %w", i, f.GetName(), err)
		}
	}
	if len(list) == 0 {
		return errors.New("http_filters: there is not even a router")
	}
	var err error
	h.Chain, err = filter.NewChain(access, entries...)
	return err
}

// httpFilter is the table of HTTP filters; nil for a type that is not there.
func (b *builder) httpFilter(h *HTTP, name string, a *anypb.Any, object *structpb.Struct) (filter.Filter, error) {
	switch name {
	case typeHTTPRBAC:
		var m rbachttpv3.RBAC
		if err := strict.Unmarshal(a, &m); err != nil {
			return nil, err
		}
		cfg, err := decode.HTTPRBAC(&m, h.StatPrefix)
		if err != nil {
			return nil, err
		}
		return stock.NewRBAC(cfg, b.cfg.Registry), nil
	case typeFault:
		var m faultv3.HTTPFault
		if err := strict.Unmarshal(a, &m); err != nil {
			return nil, err
		}
		in, err := decode.Fault(&m)
		if err != nil {
			return nil, err
		}
		return stock.NewFault(in), nil
	case typeCORS:
		return stock.CORS{}, strict.Unmarshal(a, &corsv3.Cors{})
	case typeGRPCStats:
		var m grpcstatsv3.FilterConfig
		if err := strict.Unmarshal(a, &m); err != nil || !m.GetEmitFilterState() {
			return filter.Pass{}, err
		}
		return stock.GRPCStats{}, nil
	case typeALPN:
		return stock.ALPN{}, checkALPN(a, object)
	case typeStats:
		s, err := b.stats(a, object)
		if err != nil {
			return nil, err
		}
		return s, nil
	case typePeerMetadata:
		return b.peerMetadata(a, object)
	}
	return nil, nil
}

func (b *builder) router(h *HTTP, a *anypb.Any) error {
	var m routerv3.Router
	if err := strict.Unmarshal(a, &m); err != nil {
		return err
	}
	h.Router = Router{
		SuppressHeaders: m.GetSuppressEnvoyHeaders(), SpawnUpstream: m.GetStartChildSpan(),
		RespectExpected: m.GetRespectExpectedRqTimeout(),
	}
	var err error
	if h.Router.UpstreamLogs, err = b.accessLogs(m.GetUpstreamLog()); err != nil {
		return fmt.Errorf("upstream_log: %w", err)
	}
	return nil
}

// peerMetadata reads io.istio.http.peer_metadata.Config, which comes as a TypedStruct.
func (b *builder) peerMetadata(a *anypb.Any, object *structpb.Struct) (filter.Filter, error) {
	if object == nil && len(a.GetValue()) > 0 {
		return nil, errors.New("only a TypedStruct is understood")
	}
	o := strict.NewObject(object)
	var cfg stock.PeerMetadataConfig
	o.Each("downstream_discovery", discovery(&cfg.Downstream))
	o.Each("upstream_discovery", discovery(&cfg.Upstream))
	o.Each("downstream_propagation", propagation(&cfg.TellDownstream, nil))
	o.Each("upstream_propagation", propagation(&cfg.TellUpstream, &cfg.SkipExternal))
	cfg.Labels = o.Strings("additional_labels")
	if o.Bool("shared_with_upstream", false) {
		return nil, errors.New("shared_with_upstream is not supported")
	}
	if err := o.Done(); err != nil {
		return nil, err
	}
	return stock.NewPeerMetadata(cfg, b.cfg.Self, b.cfg.Peers, b.cfg.Lookup), nil
}

func discovery(to *[]stock.Discovery) func(*strict.Object) error {
	return func(o *strict.Object) error {
		for _, way := range [...]struct {
			name string
			way  stock.Discovery
		}{{"istio_headers", stock.FromHeaders}, {"workload_discovery", stock.FromAddress}} {
			if inner, ok := o.Object(way.name); ok {
				*to = append(*to, way.way)
				return inner.Done()
			}
		}
		return nil // Done names what it is instead
	}
}

func propagation(tell, skipExternal *bool) func(*strict.Object) error {
	return func(o *strict.Object) error {
		inner, ok := o.Object("istio_headers")
		if !ok {
			return nil
		}
		*tell = true
		if skipExternal != nil {
			*skipExternal = inner.Bool("skip_external_clusters", false)
		}
		return inner.Done()
	}
}

// istioALPN is what istio.alpn overrides, by upstream protocol (HTTP10, HTTP11,
// HTTP2): the data plane does that by itself, so nothing else can be configured.
var istioALPN = [...][]string{
	{"istio-http/1.0", "istio", "http/1.0"}, {"istio-http/1.1", "istio", "http/1.1"}, {"istio-h2", "istio", "h2"},
}

// checkALPN reads istio.alpn's FilterConfig: repeated AlpnOverride alpn_override
// = 1, which is Protocol upstream_protocol = 1 and repeated string alpn_override
// = 2. The schema is Istio's, whose types end before the data plane begins.
func checkALPN(a *anypb.Any, object *structpb.Struct) error {
	if object != nil {
		return checkALPNObject(object)
	}
	return fields(a.GetValue(), func(num protowire.Number, v []byte) error {
		if num != 1 {
			return fmt.Errorf("field %d is not supported", num)
		}
		protocol, names := 0, []string(nil)
		err := fields(v, func(num protowire.Number, v []byte) error {
			switch num {
			case 1:
				n, _ := protowire.ConsumeVarint(v)
				protocol = int(n)
			case 2:
				names = append(names, string(v))
			default:
				return fmt.Errorf("alpn_override field %d is not supported", num)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if protocol >= len(istioALPN) || !slices.Equal(names, istioALPN[protocol]) {
			return fmt.Errorf("alpn_override: %q for protocol %d is not supported; only Istio's usual names are", names, protocol)
		}
		return nil
	})
}

// checkALPNObject reads the same from a TypedStruct.
func checkALPNObject(object *structpb.Struct) error {
	protocols := map[string]int{"HTTP10": 0, "HTTP11": 1, "HTTP2": 2}
	for key, list := range object.GetFields() {
		if key != "alpn_override" && key != "alpnOverride" {
			return fmt.Errorf("field %q is not supported", key)
		}
		for _, item := range list.GetListValue().GetValues() {
			f := item.GetStructValue().GetFields()
			protocol, ok := protocols[f["upstream_protocol"].GetStringValue()]
			var names []string
			for _, n := range f["alpn_override"].GetListValue().GetValues() {
				names = append(names, n.GetStringValue())
			}
			if !ok || len(f) != 2 || !slices.Equal(names, istioALPN[protocol]) {
				return fmt.Errorf("alpn_override: %v is not supported; only Istio's usual names are", item)
			}
		}
	}
	return nil
}

// fields visits the fields of an encoded message: the bytes of those that have a
// length, the varint itself of the others.
func fields(b []byte, visit func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v []byte
		switch typ {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			if _, n = protowire.ConsumeVarint(b); n > 0 {
				v = b[:n]
			}
		default:
			return fmt.Errorf("field %d has an unexpected type", num)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := visit(num, v); err != nil {
			return err
		}
	}
	return nil
}
