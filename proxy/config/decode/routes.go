// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/telemetry"
)

// Routes reads route configurations.
type Routes struct {
	Registry *telemetry.Registry
	// Read reads the file of a direct response's body.
	Read func(path string) ([]byte, error)

	maxBody int
	host    *Host // being read
}

// A Host is a virtual host that was read. Tables share it: nobody writes to it.
type Host struct {
	spec     *route.VirtualHost
	settings map[any][]filter.Setting // by *route.VirtualHost, *route.Route, *route.Weighted; only where there are some
	bodies   bool
}

// Fixed reports whether h depends on its message alone, so that it need not be read again while that stays the same.
// A body depends on a file or on a limit of the table.
func (h *Host) Fixed() bool { return !h.bodies }

// A Table is a compiled table with what its routes say to filters, by slot.
type Table struct {
	*route.Table
	Settings [][]filter.Setting
}

// defaultMaxBody is Envoy's limit of a direct response's body, in bytes.
const defaultMaxBody = 4096

// Table reads and compiles m.
func (d Routes) Table(m *routev3.RouteConfiguration) (*Table, error) {
	hosts := make([]*Host, len(m.GetVirtualHosts()))
	for i, vh := range m.GetVirtualHosts() {
		var err error
		if hosts[i], err = d.Host(m, vh); err != nil {
			return nil, err
		}
	}
	return d.Compile(m, hosts)
}

// Compile reads and compiles m with hosts in the place of its own.
func (d Routes) Compile(m *routev3.RouteConfiguration, hosts []*Host) (*Table, error) {
	cfg := &route.Config{
		Name: m.GetName(), Source: Source(m.GetMetadata()), IgnorePort: m.GetIgnorePortInHostMatching(),
		MostSpecificWins: m.GetMostSpecificHeaderMutationsWins(), InternalOnly: m.GetInternalOnlyHeaders(),
		VirtualHosts: make([]*route.VirtualHost, len(hosts)),
	}
	var err error
	if cfg.RequestHeaders, err = HeaderOps(m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove()); err != nil {
		return nil, fmt.Errorf("request_headers_to_add%w", err)
	}
	if cfg.ResponseHeaders, err = HeaderOps(m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove()); err != nil {
		return nil, fmt.Errorf("response_headers_to_add%w", err)
	}
	own, err := Settings(m.GetTypedPerFilterConfig(), d.Registry)
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		cfg.VirtualHosts[i] = h.spec
	}
	table, err := route.Compile(cfg)
	if err != nil {
		return nil, err
	}
	out := &Table{Table: table, Settings: make([][]filter.Setting, table.Slots())}
	table.Walk(func(slot, host int, r *route.Route, choice int) {
		h := hosts[host]
		if len(own)+len(h.settings) == 0 {
			return
		}
		var weighted []filter.Setting
		if r.Forward != nil {
			weighted = h.settings[&r.Forward.Clusters[choice]]
		}
		out.Settings[slot] = Merge(weighted, h.settings[r], h.settings[h.spec], own)
	})
	return out, nil
}

// Host reads a virtual host of table m.
func (d Routes) Host(m *routev3.RouteConfiguration, vh *routev3.VirtualHost) (*Host, error) {
	d.maxBody = defaultMaxBody
	if n := m.GetMaxDirectResponseBodySizeBytes(); n != nil {
		d.maxBody = int(n.GetValue())
	}
	d.host = &Host{spec: &route.VirtualHost{}}
	if err := d.virtualHost(d.host.spec, vh); err != nil {
		return nil, fmt.Errorf("virtual host %q: %w", vh.GetName(), err)
	}
	return d.host, nil
}

// set notes what a part of the host being read says to filters.
func (d *Routes) set(part any, m map[string]*anypb.Any) error {
	s, err := Settings(m, d.Registry)
	if len(s) > 0 {
		if d.host.settings == nil {
			d.host.settings = map[any][]filter.Setting{}
		}
		d.host.settings[part] = s
	}
	return err
}

func (d *Routes) virtualHost(h *route.VirtualHost, m *routev3.VirtualHost) (err error) {
	h.Name, h.Domains, h.Source = m.GetName(), m.GetDomains(), Source(m.GetMetadata())
	h.AttemptCount, h.AttemptCountOut = m.GetIncludeRequestAttemptCount(), m.GetIncludeAttemptCountInResponse()
	switch m.GetRequireTls() {
	case routev3.VirtualHost_EXTERNAL_ONLY:
		h.RequireTLS = route.RequireExternal
	case routev3.VirtualHost_ALL:
		h.RequireTLS = route.RequireAll
	}
	if h.RequestHeaders, err = HeaderOps(m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove()); err != nil {
		return fmt.Errorf("request_headers_to_add%w", err)
	}
	if h.ResponseHeaders, err = HeaderOps(m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove()); err != nil {
		return fmt.Errorf("response_headers_to_add%w", err)
	}
	if h.Retry, err = Retry(m.GetRetryPolicy()); err != nil {
		return fmt.Errorf("retry_policy: %w", err)
	}
	if h.Mirrors, err = each(m.GetRequestMirrorPolicies(), mirror); err != nil {
		return fmt.Errorf("request_mirror_policies%w", err)
	}
	if err = d.set(h, m.GetTypedPerFilterConfig()); err != nil {
		return err
	}
	limit := int64(m.GetPerRequestBufferLimitBytes().GetValue())
	h.Routes = make([]route.Route, len(m.GetRoutes()))
	for i, r := range m.GetRoutes() {
		h.Routes[i].BufferLimit = limit
		if err := d.route(&h.Routes[i], r); err != nil {
			return fmt.Errorf("route %d (%q): %w", i, r.GetName(), err)
		}
	}
	return nil
}

func (d *Routes) route(r *route.Route, m *routev3.Route) (err error) {
	r.Name, r.Source, r.StatPrefix = m.GetName(), Source(m.GetMetadata()), m.GetStatPrefix()
	if n := m.GetPerRequestBufferLimitBytes(); n != nil {
		r.BufferLimit = int64(n.GetValue())
	}
	if r.Match, err = routeMatch(m.GetMatch()); err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if r.RequestHeaders, err = HeaderOps(m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove()); err != nil {
		return fmt.Errorf("request_headers_to_add%w", err)
	}
	if r.ResponseHeaders, err = HeaderOps(m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove()); err != nil {
		return fmt.Errorf("response_headers_to_add%w", err)
	}
	if dec := m.GetDecorator(); dec != nil {
		r.Decorator = &route.Decorator{Operation: dec.GetOperation(), Propagate: true}
		if p := dec.GetPropagate(); p != nil {
			r.Decorator.Propagate = p.GetValue()
		}
	}
	if err = d.set(r, m.GetTypedPerFilterConfig()); err != nil {
		return err
	}
	return d.action(r, m)
}

func routeMatch(m *routev3.RouteMatch) (out route.Match, err error) {
	p := &out.Path
	p.IgnoreCase = m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()
	switch s := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		p.Kind, p.Value = route.PathPrefix, s.Prefix
	case *routev3.RouteMatch_Path:
		p.Kind, p.Value = route.PathExact, s.Path
	case *routev3.RouteMatch_SafeRegex:
		p.Kind, p.Value = route.PathRegex, s.SafeRegex.GetRegex()
	case *routev3.RouteMatch_PathSeparatedPrefix:
		p.Kind, p.Value = route.PathSegments, s.PathSeparatedPrefix
	case *routev3.RouteMatch_ConnectMatcher_:
		p.Kind = route.PathConnect
	case *routev3.RouteMatch_PathMatchPolicy:
		var t uritemplatev3.UriTemplateMatchConfig
		if err := strict.Unmarshal(s.PathMatchPolicy.GetTypedConfig(), &t); err != nil {
			return out, fmt.Errorf("path_match_policy: %w", err)
		}
		p.Kind, p.Value = route.PathTemplate, t.GetPathTemplate()
	default:
		return out, errors.New("the path condition is missing")
	}
	if out.Headers, err = Headers(m.GetHeaders()); err != nil {
		return out, fmt.Errorf("headers%w", err)
	}
	if out.Query, err = each(m.GetQueryParameters(), query); err != nil {
		return out, fmt.Errorf("query_parameters%w", err)
	}
	if out.Metadata, err = each(m.GetDynamicMetadata(), Metadata); err != nil {
		return out, fmt.Errorf("dynamic_metadata%w", err)
	}
	if f := m.GetRuntimeFraction(); f != nil {
		share := Fraction(f.GetDefaultValue())
		out.Fraction = &share
	}
	out.GRPC = m.GetGrpc() != nil
	if t := m.GetTlsContext(); t != nil {
		if t.GetPresented() != nil {
			v := t.GetPresented().GetValue()
			out.Presented = &v
		}
		if t.GetValidated() != nil {
			v := t.GetValidated().GetValue()
			out.Validated = &v
		}
	}
	return out, nil
}
