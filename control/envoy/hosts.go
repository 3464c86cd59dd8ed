// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/meltemi/meltemi/control/envoy/cluster"
	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/route"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// hostSort says what a host is doing in its table.
type hostSort uint8

const (
	hostOnPort  hostSort = iota // one of many on its port
	hostAlone                   // the only one: domain "*"
	hostProxied                 // one of many on many ports: its domains keep theirs
)

// A hostKey asks for one host's routes in a table for a port.
type hostKey struct {
	Sight  sight.Sight
	Client intent.Subject
	Host   mesh.Hostname
	Port   int
	Sort   hostSort
}

// hostFor compiles one host; nil for one that nobody knows. What an alias is called goes to what it stands for.
func (b *Backend) hostFor(c *derive.Context, k hostKey) *route.Host {
	named := b.Facts.Service.Get(c, b.Sees(c, k.Sight, k.Host, k.Port))
	real, name := named, k.Host
	if named != nil && named.Resolution == registry.Alias {
		if real = b.Service(c, k.Sight, k.Host); real == nil {
			return nil
		}
		name = real.Host
	}
	routes := b.Routes(c, k.Sight, name, k.Port)
	if real == nil && routes == nil {
		return nil
	}
	vh := &routev3.VirtualHost{
		Name:                       string(k.Host) + ":" + strconv.Itoa(k.Port),
		Domains:                    domains(k, named, b.Settings(c).Domain),
		IncludeRequestAttemptCount: true,
		Metadata:                   hostOrigin(named, routes),
	}
	protocol := mesh.HTTP
	if real != nil {
		p, ok := real.Port(k.Port)
		if !ok {
			return nil
		}
		protocol = p.Protocol
	}
	if k.Sort == hostProxied && real != nil {
		vh.Routes = append(vh.Routes, route.Connect(mesh.ClusterName{Direction: mesh.Outbound, Port: k.Port, Host: name}.String()))
	}
	if cluster.CarriesHTTP(protocol) {
		vh.Routes = append(vh.Routes, b.hostRoutes(c, k, real, routes)...)
	}
	if len(vh.Routes) == 0 {
		return nil
	}
	return route.NewHost(vh)
}

// hostRoutes are the routes that apply, or else the service's default. Routes of which none is for this client are none.
func (b *Backend) hostRoutes(c *derive.Context, k hostKey, s *registry.Service, routes *intent.HostRoutes) []*routev3.Route {
	r := &route.Compiler{
		Mesh:    sight.Target{World: b.World, Context: c, Sight: k.Sight, Client: k.Client, Port: k.Port},
		Retries: &b.Settings(c).OutboundRetries, Port: k.Port, Namespace: k.Sight.Namespace(), Labels: k.Client.Labels(),
	}
	if routes != nil {
		if out := r.Routes(routes.HTTP); len(out) > 0 {
			return out
		}
	}
	if s == nil {
		return nil
	}
	return []*routev3.Route{r.Default(s)}
}

// isHostPersonal reports whether a host's routes differ between clients of one sight: because a route asks for the
// client's labels, or a rule for a destination does.
func (b *Backend) isHostPersonal(c *derive.Context, k hostKey) bool {
	personal := func(h mesh.Hostname) bool { return b.Personal(c, k.Sight, h) }
	name := k.Host
	if s := b.Service(c, k.Sight, k.Host); s != nil {
		name = s.Host
	}
	routes := b.Routes(c, k.Sight, name, k.Port)
	if routes == nil {
		return personal(name)
	}
	for i := range routes.HTTP {
		r := &routes.HTTP[i]
		for j := range r.Matches {
			if len(r.Matches[j].SourceLabels) > 0 {
				return true
			}
		}
		for j := range r.Forward {
			if personal(r.Forward[j].Host) {
				return true
			}
		}
	}
	return personal(name)
}

func hostOrigin(s *registry.Service, routes *intent.HostRoutes) *corev3.Metadata {
	var origins []source.Origin
	if routes != nil {
		origins = append(origins, source.Origin{Object: routes.Object})
	}
	if s != nil {
		origins = append(origins, source.Origin{Object: s.Object})
	}
	return emit.From(origins...)
}

// domains are the names by which clients may call the host.
func domains(k hostKey, s *registry.Service, domain string) []string {
	if k.Sort == hostAlone {
		return []string{"*"}
	}
	names := route.Names(k.Host, k.Sight.Namespace(), s, domain)
	if k.Sort == hostOnPort {
		return names
	}
	// A request without a port is for the scheme's own.
	port := strconv.Itoa(k.Port)
	var out []string
	for _, n := range names {
		if k.Port == 80 {
			out = append(out, n)
		}
		if !strings.HasSuffix(n, ".") {
			out = append(out, n+":"+port)
		}
	}
	return out
}
