// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

const typeAddress = typePrefix + "istio.workload.Address"

// thing identifies a resource of the world.
type thing struct{ typeURL, name string }

func order2(a, b thing) int {
	return cmp.Or(cmp.Compare(a.typeURL, b.typeURL), cmp.Compare(a.name, b.name))
}

// content is what a resource says, under which other names, and in which zone; "" is everywhere.
type content struct{ text, aliases, zone string }

// proxy is the key of the world's clients.
type proxy struct{ zone string }

type wish struct {
	proxy
	name string
}

// world is a backend whose resources are the rows of one table.
type world struct {
	g      *derive.Graph
	things *derive.Table[thing, content]
	byName *derive.Index[thing, thing] // by alias, too
	hub    *Hub
	broken string // the name of a resource whose query panics
}

func newWorld(cfg Config) *world {
	w := &world{g: derive.NewGraph()}
	w.things = derive.NewTable[thing](w.g, "things", func(a, b content) bool { return a == b }).WithOrder(order2)
	w.byName = derive.NewIndex(w.things, "things by name", func(k thing, c content) []thing {
		keys := []thing{k}
		for _, a := range strings.Fields(c.aliases) {
			keys = append(keys, thing{k.typeURL, a})
		}
		return keys
	})
	w.hub = New(w.g, cfg, NewBackend(
		func(c *xds.Client) bool { return !strings.HasPrefix(c.Node.GetId(), "ztunnel") },
		func(c *xds.Client) (proxy, error) {
			if c.Node.GetId() == "bad" {
				return proxy{}, errors.New("no address")
			}
			return proxy{c.Node.GetLocality().GetZone()}, nil
		},
		// Not in order: the hub knows better.
		w.kind(typeExtension, false), w.kind(typeRoute, false), w.kind(typeListener, true), w.kind(typeAddress, true),
		w.kind(typeEndpoint, false), w.kind(typeCluster, true)))
	return w
}

func (w *world) kind(typeURL string, wildcard bool) Kind[proxy] {
	var names *derive.Query[proxy, []string]
	if wildcard {
		names = derive.NewQuery(w.g, "names "+typeURL, nil, func(c *derive.Context, p proxy) []string {
			var out []string
			for _, k := range w.things.Keys(c) {
				if k.typeURL == typeURL {
					out = append(out, k.name)
				}
			}
			return out
		})
	}
	same := func(a, b *xds.Resource) bool {
		return a == b || a != nil && b != nil && a.Version == b.Version && a.Name == b.Name
	}
	get := derive.NewQuery(w.g, "resource "+typeURL, same, func(c *derive.Context, k wish) *xds.Resource {
		if k.name == w.broken {
			panic("a defect")
		}
		for _, found := range w.byName.Get(c, thing{typeURL, k.name}) {
			if ct, _ := w.things.Get(c, found); ct.zone == "" || ct.zone == k.zone {
				return resource(typeURL, found.name, ct.text, strings.Fields(ct.aliases)...)
			}
		}
		if typeURL == typeEndpoint || typeURL == typeRoute {
			return resource(typeURL, k.name, "empty")
		}
		return nil
	})
	return NewKind(w.g, typeURL, names, get, func(p proxy, name string) wish { return wish{p, name} })
}

func resource(typeURL, name, text string, aliases ...string) *xds.Resource {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), text)
	return &xds.Resource{Name: name, Version: text, Aliases: aliases, Body: &anypb.Any{TypeUrl: typeURL, Value: b}}
}

// set writes "text", or "text@zone", with aliases behind a blank; "" deletes.
func (w *world) set(typeURL, name, text string) {
	w.g.Update(func(tx *derive.Tx) {
		if text == "" {
			w.things.Delete(tx, thing{typeURL, name})
			return
		}
		text, aliases, _ := strings.Cut(text, " ")
		text, zone, _ := strings.Cut(text, "@")
		w.things.Set(tx, thing{typeURL, name}, content{text, aliases, zone})
	})
}

func (w *world) open(t *testing.T, id, zone string) *feed {
	t.Helper()
	f, err := w.hub.Open(t.Context(), &xds.Client{
		Node: &corev3.Node{Id: id, Locality: &corev3.Locality{Zone: zone}}, ID: id + "-1", Delta: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f.(*feed)
}

// took waits, in fake time, for the next update within d; nil if there is none.
func took(t *testing.T, f *feed, d time.Duration) *xds.Update {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	u, err := f.Next(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return u
}

// said lists the updates that come within d as words, and acknowledges them.
func said(t *testing.T, f *feed, d time.Duration) string {
	t.Helper()
	var out []string
	for until := time.Now().Add(d); ; {
		u := took(t, f, time.Until(until))
		if u == nil {
			return strings.Join(out, "; ")
		}
		out = append(out, words(u))
		f.Ack(u.TypeURL, u.Nonce)
	}
}

func words(u *xds.Update) string {
	s := short(u.TypeURL)
	if u.Full {
		s += " full"
	}
	for _, r := range u.Resources {
		s += fmt.Sprintf(" %s=%s", r.Name, r.Version)
	}
	for _, n := range u.Removed {
		s += " -" + n
	}
	return s
}

func short(typeURL string) string { return typeURL[strings.LastIndex(typeURL, ".")+1:] }

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}
