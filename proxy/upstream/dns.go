// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Bounds of DNS clusters. The resolver does not tell a record's TTL, so the
// cluster's own refresh rate decides; Envoy's default is 5 s.
const (
	defaultDNSRefresh = 5 * time.Second
	lookupTimeout     = 5 * time.Second
	maxAddresses      = 1024 // of one name
)

// followDNS resolves c's names now and again until c is retired. What a failed
// lookup knew before stays in force.
func (c *Cluster) followDNS(ctx context.Context, resolver Resolver) {
	ctx, c.stopDNS = context.WithCancel(ctx)
	go func() {
		known := make(map[string][]netip.Addr)
		for {
			if c.resolveAll(ctx, resolver, known) {
				c.assign(c.resolved(known), nil)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(c.refresh()):
			}
		}
	}()
}

func (c *Cluster) refresh() time.Duration {
	if c.spec.DNSRefresh > 0 {
		return c.spec.DNSRefresh
	}
	return defaultDNSRefresh
}

// resolveAll looks every name up and says whether anything changed.
func (c *Cluster) resolveAll(ctx context.Context, resolver Resolver, known map[string][]netip.Addr) (changed bool) {
	for _, name := range c.names() {
		addrs, err := c.lookup(ctx, resolver, name)
		if err != nil || len(addrs) == 0 {
			continue
		}
		if c.spec.Discovery == LogicalDNS {
			addrs = addrs[:1]
		}
		if !slices.Equal(known[name], addrs) {
			known[name] = addrs
			changed = true
		}
	}
	return changed
}

func (c *Cluster) lookup(ctx context.Context, resolver Resolver, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	network := "ip"
	switch c.spec.DNSFamily {
	case OnlyIPv4:
		network = "ip4"
	case OnlyIPv6:
		network = "ip6"
	}
	addrs, err := resolver.LookupNetIP(ctx, network, name)
	if err != nil {
		return nil, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare) // IPv4 first
	if c.spec.DNSFamily == PreferIPv4 && len(addrs) > 0 && addrs[0].Is4() {
		addrs = slices.DeleteFunc(addrs, netip.Addr.Is6)
	}
	addrs = slices.Compact(addrs)
	return addrs[:min(len(addrs), maxAddresses)], nil
}

func (c *Cluster) names() []string {
	var names []string
	if c.spec.Endpoints == nil {
		return nil
	}
	for _, l := range c.spec.Endpoints.Localities {
		for _, e := range l.Endpoints {
			if e.Hostname != "" && !slices.Contains(names, e.Hostname) {
				names = append(names, e.Hostname)
			}
		}
	}
	return names
}

// resolved is c's configured assignment with names replaced by their addresses.
func (c *Cluster) resolved(known map[string][]netip.Addr) *Assignment {
	out := &Assignment{Overprovisioning: c.spec.Endpoints.Overprovisioning}
	for _, l := range c.spec.Endpoints.Localities {
		place := l
		place.Endpoints = nil
		for _, e := range l.Endpoints {
			if e.Hostname == "" {
				place.Endpoints = append(place.Endpoints, e)
				continue
			}
			for _, a := range known[e.Hostname] {
				e.Addr = netip.AddrPortFrom(a, e.Addr.Port())
				place.Endpoints = append(place.Endpoints, e)
			}
		}
		out.Localities = append(out.Localities, place)
	}
	return out
}
