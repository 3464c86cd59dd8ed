// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/envoy/route"
	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

// edgeRoutes is a gateway's route table by name.
func (b *Backend) edgeRoutes(c *derive.Context, cl sight.Client, s sight.Sight, name string) *xds.Resource {
	doors := b.doors(c, cl)
	for i := range doors {
		d := &doors[i]
		if name == d.plainTable() {
			return b.edgeTable(c, cl, s, d, -1, name)
		}
		for j, srv := range d.Servers {
			if srv.TLS != nil && !srv.TLS.Redirect && d.secureTable(srv) == name {
				return b.edgeTable(c, cl, s, d, j, name)
			}
		}
	}
	return nil
}

func (b *Backend) edgeTable(c *derive.Context, cl sight.Client, s sight.Sight, d *door, server int, name string) *xds.Resource {
	var hosts []*route.Host
	wished := b.Wishes.VirtualHosts.Get(c, intent.Table{Subject: cl.Subject, Port: d.Port, Bind: d.Bind, Server: server})
	for _, vh := range wished {
		k := edgeKey{Sight: s, Client: cl.Subject, Port: d.Port, TLS: server >= 0, Gateways: gatewaysOf(d, server), Host: vh}
		if h := b.edgeHost.Get(c, k); h != nil {
			hosts = append(hosts, h)
		}
	}
	if len(hosts) == 0 {
		hosts = []*route.Host{route.NewHost(&routev3.VirtualHost{Name: "blackhole:" + strconv.Itoa(d.Port), Domains: []string{"*"}})}
	}
	return packed(name, route.Table(name, false, hosts, nil))
}

// An edgeKey asks for one host of a gateway. The wish itself is part of it: one that did not change is the same pointer
// as before.
type edgeKey struct {
	Sight    sight.Sight
	Client   intent.Subject
	Port     int
	TLS      bool
	Gateways string // names, each followed by a blank
	Host     *intent.VirtualHost
}

// edgeHostFor compiles one host; nil for one without routes.
func (b *Backend) edgeHostFor(c *derive.Context, k edgeKey) *route.Host {
	out := &routev3.VirtualHost{
		Name: string(k.Host.Host) + ":" + strconv.Itoa(k.Port), Domains: []string{string(k.Host.Host)},
		IncludeRequestAttemptCount: true,
	}
	if k.Host.Redirect {
		out.RequireTls = routev3.VirtualHost_ALL
	}
	r := route.Compiler{
		Mesh:    sight.Target{World: b.World, Context: c, Sight: k.Sight, Client: k.Client, Port: k.Port},
		Retries: &b.Settings(c).OutboundRetries, Port: k.Port, TLS: k.TLS,
		Gateways: splitGateways(k.Gateways), Namespace: k.Client.Namespace, Labels: k.Client.Labels(),
	}
	out.Routes = r.Routes(k.Host.Routes)
	if len(out.Routes) == 0 && !k.Host.Redirect {
		return nil // named by routes for connections alone; it must not hide a wildcard that has some for requests
	}
	var origins []source.Origin
	for i := range k.Host.Routes {
		if o := (source.Origin{Object: k.Host.Routes[i].Origin.Object}); !slices.Contains(origins, o) {
			origins = append(origins, o)
		}
	}
	out.Metadata = emit.From(origins...)
	return route.NewHost(out)
}

// gatewaysOf are the Gateways whose servers share a table.
func gatewaysOf(d *door, server int) string {
	if server >= 0 {
		return string(d.Servers[server].Gateway) + " "
	}
	out := ""
	for i, s := range d.Servers {
		if plainHTTP(s) && !slices.ContainsFunc(d.Servers[:i], func(o *intent.Server) bool { return plainHTTP(o) && o.Gateway == s.Gateway }) {
			out += string(s.Gateway) + " "
		}
	}
	return out
}

func splitGateways(s string) []intent.GatewayName {
	var out []intent.GatewayName
	for _, name := range strings.Fields(s) {
		out = append(out, intent.GatewayName(name))
	}
	return out
}
