// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/mesh"
)

// shortTypes are the names that people know xDS types by, in the order of columns.
var shortTypes = []struct{ short, url string }{
	{"CDS", "type.googleapis.com/envoy.config.cluster.v3.Cluster"},
	{"LDS", "type.googleapis.com/envoy.config.listener.v3.Listener"},
	{"EDS", "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"},
	{"RDS", "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"},
	{"SDS", "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"},
	{"NDS", "type.googleapis.com/istio.networking.nds.v1.NameTable"},
	{"WDS", "type.googleapis.com/istio.workload.Address"},
}

// columns is how many of shortTypes the table shows.
const columns = 4

func shortType(url string) string {
	for _, t := range shortTypes {
		if t.url == url {
			return t.short
		}
	}
	return url[strings.LastIndexByte(url, '/')+1:]
}

// nodeName is NAME.NAMESPACE of a node's ID.
func nodeName(id string) string {
	n, err := mesh.ParseNodeID(id)
	if err != nil {
		return id
	}
	return n.Name + "." + string(n.Namespace)
}

// ProxyStatus shows what each proxy was sent and made of it; with a name, that
// proxy's types one by one.
func (m *Mesh) ProxyStatus(ctx context.Context, name string) error {
	clients, err := m.clients(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(clients, func(a, b push.ClientStatus) int { return cmp.Compare(nodeName(a.Node), nodeName(b.Node)) })
	if name != "" {
		return m.oneStatus(clients, name)
	}
	if m.JSON {
		return m.json(clients)
	}
	t := table{head: []string{"NAME"}}
	for _, s := range shortTypes[:columns] {
		t.head = append(t.head, s.short)
	}
	t.head = append(t.head, "VERSION", "REASON")
	for i := range clients {
		c := &clients[i]
		row := []string{nodeName(c.Node)}
		for _, s := range shortTypes[:columns] {
			row = append(row, state(typeOf(c, s.url)))
		}
		t.add(append(row, or(newest(c)), or(reason(c)))...)
	}
	return t.print(m.Out)
}

func typeOf(c *push.ClientStatus, url string) *push.TypeStatus {
	i := slices.IndexFunc(c.Types, func(t push.TypeStatus) bool { return t.TypeURL == url })
	if i < 0 {
		return nil
	}
	return &c.Types[i]
}

// state is one cell: what the proxy made of a type.
func state(t *push.TypeStatus) string {
	switch {
	case t == nil:
		return "-" // it has not asked
	case len(t.Rejected) > 0:
		return "NACK"
	case t.Waiting > 0:
		return "STALE"
	case t.Sent == "":
		return "NOT SENT"
	}
	return "SYNCED"
}

// newest is the version of the last update of any type.
func newest(c *push.ClientStatus) string {
	var at time.Time
	version := ""
	for i := range c.Types {
		if t := &c.Types[i]; t.SentAt.After(at) {
			at, version = t.SentAt, t.Sent
		}
	}
	return version
}

// reason says what a proxy rejects or has not answered.
func reason(c *push.ClientStatus) string {
	var out []string
	for i := range c.Types {
		t := &c.Types[i]
		switch {
		case len(t.Rejected) > 0:
			r := &t.Rejected[0]
			more := ""
			if n := len(t.Rejected) - 1; n > 0 {
				more = fmt.Sprintf(" (and %d more)", n)
			}
			out = append(out, fmt.Sprintf("%s %s: %s%s", shortType(t.TypeURL), r.Name, oneLine(r.Detail), more))
		case t.Waiting > 0:
			out = append(out, fmt.Sprintf("%s: %d updates unanswered, the last one for %s", shortType(t.TypeURL), t.Waiting, since(t.SentAt)))
		}
	}
	return strings.Join(out, "; ")
}

func since(t time.Time) string { return time.Since(t).Round(time.Second).String() }

// maxLine is how much of a proxy's words a table shows.
const maxLine = 300

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine], "") + "…"
	}
	return s
}

// oneStatus shows the types of the proxies called name.
func (m *Mesh) oneStatus(clients []push.ClientStatus, name string) error {
	if ns, short, ok := strings.Cut(name, "/"); ok {
		name = short + "." + ns
	}
	clients = slices.DeleteFunc(clients, func(c push.ClientStatus) bool {
		n := nodeName(c.Node)
		return n != name && !strings.HasPrefix(n, name+".")
	})
	if len(clients) == 0 {
		return fmt.Errorf("no proxy %q is connected to the control plane", name)
	}
	if m.JSON {
		return m.json(clients)
	}
	for i := range clients {
		c := &clients[i]
		way := "state of the world"
		if c.Delta {
			way = "delta"
		}
		if _, err := fmt.Fprintf(m.Out, "%s, %s, from %s, %s, connected for %s\n", nodeName(c.Node), or(c.Identity), c.RemoteAddr, way, since(c.ConnectedAt)); err != nil {
			return err
		}
		t := table{head: []string{"TYPE", "STATE", "RESOURCES", "ASKED FOR", "SENT", "ACCEPTED"}}
		for j := range c.Types {
			ty := &c.Types[j]
			asked := fmt.Sprint(ty.Names)
			if ty.Wildcard {
				asked = "all"
			}
			t.add(shortType(ty.TypeURL), state(ty), fmt.Sprint(ty.Resources), asked, or(ty.Sent), or(ty.Acked))
		}
		if err := t.print(m.Out); err != nil {
			return err
		}
		if err := m.rejections(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mesh) rejections(c *push.ClientStatus) error {
	for i := range c.Types {
		t := &c.Types[i]
		for j := range t.Rejected {
			r := &t.Rejected[j]
			if _, err := fmt.Fprintf(m.Out, "rejected %s %s (version %s): %s\n", shortType(t.TypeURL), r.Name, r.Version, oneLine(r.Detail)); err != nil {
				return err
			}
		}
	}
	return nil
}
