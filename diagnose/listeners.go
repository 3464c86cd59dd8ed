// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// raw prints the sections of a config dump whose type ends in one of kinds.
func (m *Mesh) raw(b []byte, kinds ...string) error {
	var all struct {
		Configs []json.RawMessage `json:"configs"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("config dump: %w", err)
	}
	out := []json.RawMessage{}
	for _, raw := range all.Configs {
		var head struct {
			Type string `json:"@type"`
		}
		if json.Unmarshal(raw, &head) != nil {
			continue
		}
		for _, k := range kinds {
			if strings.HasSuffix(head.Type, "."+k) {
				out = append(out, raw)
			}
		}
	}
	return m.json(out)
}

// Listeners shows a proxy's listeners and their filter chains.
func (m *Mesh) Listeners(ctx context.Context, workload string) error {
	p, err := m.find(workload)
	if err != nil {
		return err
	}
	d, b, err := m.dump(ctx, p)
	if err != nil {
		return err
	}
	if m.JSON {
		return m.raw(b, "ListenersConfigDump")
	}
	where := m.places()
	t := table{head: []string{"NAME", "ADDRESS", "PORT", "MATCH", "DESTINATION", "FROM"}}
	said := map[string]bool{}
	for i := range d.listeners {
		l := &d.listeners[i]
		if l.failure != nil {
			if l.Name == "" && said[l.failure.Details] { // Envoy notes some failures a second time, under no name
				continue
			}
			said[l.failure.Details] = true
		}
		host, port := l.Address.parts()
		chains := l.Chains
		if l.Default != nil {
			chains = append(chains[:len(chains):len(chains)], *l.Default)
		}
		for j := range chains {
			match := chains[j].Match.String()
			if l.Default != nil && j == len(chains)-1 {
				match = "else"
			}
			from := chains[j].Metadata.origins()
			if from == nil {
				from = l.Metadata.origins()
			}
			t.add(or(l.Name), host, port, match, chains[j].destination(), or(where.short(ctx, from)))
		}
		switch {
		case l.failure != nil:
			t.add(or(l.Name), host, port, "-", "REJECTED: "+oneLine(l.failure.Details), "-")
		case len(chains) == 0:
			t.add(or(l.Name), host, port, "-", or(l.versionState), "-")
		}
	}
	return t.print(m.Out)
}

// parts are host and port as columns.
func (a *address) parts() (host, port string) {
	switch {
	case a.Socket != nil:
		return a.Socket.Address, strconv.Itoa(a.Socket.Port)
	case a.Pipe != nil:
		return a.Pipe.Path, "-"
	case a.Internal != nil:
		return "internal:" + a.Internal.Name, "-"
	}
	return "-", "-"
}

// String says which connections fit, as istioctl words it.
func (m *chainMatch) String() string {
	var parts []string
	if len(m.ServerNames) > 0 {
		parts = append(parts, "SNI: "+strings.Join(m.ServerNames, ","))
	}
	if m.Transport != "" {
		parts = append(parts, "Trans: "+m.Transport)
	}
	if len(m.Protocols) > 0 {
		parts = append(parts, "App: "+strings.Join(m.Protocols, ","))
	}
	for _, r := range m.Prefixes {
		parts = append(parts, fmt.Sprintf("Addr: %s/%d", r.Address, r.Length))
	}
	if m.Port != 0 {
		parts = append(parts, fmt.Sprintf("Port: %d", m.Port))
	}
	if len(parts) == 0 {
		return "ALL"
	}
	return strings.Join(parts, "; ")
}

// destination says where a chain leads.
func (c *filterChain) destination() string {
	tls := ""
	if c.Transport != nil && !strings.HasSuffix(c.Transport.Name, "raw_buffer") {
		tls = "TLS, "
	}
	for i := range c.Filters {
		switch f := &c.Filters[i].Typed; {
		case f.RDS != nil:
			return tls + "Route: " + f.RDS.Name
		case f.RouteConfig != nil:
			return tls + "Inline Route: " + f.RouteConfig.Name
		case f.Weighted != nil:
			return tls + "Clusters: " + split(f.Weighted.Clusters)
		case f.Cluster != "":
			return tls + "Cluster: " + f.Cluster
		}
	}
	return tls + "-"
}

func split(list []weighted) string {
	var out []string
	for _, w := range list {
		out = append(out, fmt.Sprintf("%s (%d)", w.Name, w.Weight))
	}
	return strings.Join(out, ", ")
}
