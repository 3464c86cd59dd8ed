// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"cmp"
	"slices"

	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

// A Backend serves one sort of client.
type Backend interface {
	// serves reports whether the client is of this sort.
	serves(c *xds.Client) bool
	// bind makes the kinds that c can ask for. The error says what is wrong with its node.
	bind(c *xds.Client) (kinds []bound, err error)
}

// A Kind is one resource type, for clients whose key is a C. Make it with NewKind.
type Kind[C comparable] struct {
	typeURL string
	bind    func(client C) bound
}

// NewKind declares a type. names lists what a client that asks for everything gets; nil if the type
// is asked for by name alone. get makes one resource, nil if the name means nothing; key makes its argument. What get
// returns must stay the same pointer while it is the same, which its equal function sees to.
func NewKind[C, N comparable](g *derive.Graph, typeURL string, names *derive.Query[C, []string],
	get *derive.Query[N, *xds.Resource], key func(client C, name string) N) Kind[C] {
	var all *derive.Query[C, []*xds.Resource]
	if names != nil {
		all = derive.NewQuery(g, "all "+typeURL, slices.Equal, func(c *derive.Context, client C) []*xds.Resource {
			return list(names.Get(c, client), func(name string) *xds.Resource { return get.Get(c, key(client, name)) })
		})
	}
	return Kind[C]{typeURL, func(client C) bound {
		b := bound{
			typeURL: typeURL,
			get:     func(c *derive.Context, name string) *xds.Resource { return get.Get(c, key(client, name)) },
			watch: func(w *derive.Watcher, name string, tag any) *derive.Hold {
				return derive.Watch(w, get, key(client, name), tag)
			},
			origins: func(c *derive.Context, name string) []derive.Origin { return get.Provenance(c, key(client, name)) },
		}
		if all != nil {
			b.all = func(c *derive.Context) []*xds.Resource { return all.Get(c, client) }
			b.watchAll = func(w *derive.Watcher, tag any) *derive.Hold { return derive.Watch(w, all, client, tag) }
		}
		return b
	}}
}

// list is the resources of names that mean something, sorted by the resources' own names, each once.
func list(names []string, get func(name string) *xds.Resource) []*xds.Resource {
	out := make([]*xds.Resource, 0, len(names))
	for _, name := range names {
		if r := get(name); r != nil {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, byName)
	return slices.CompactFunc(out, func(a, b *xds.Resource) bool { return a.Name == b.Name })
}

func byName(a, b *xds.Resource) int { return cmp.Compare(a.Name, b.Name) }

// A bound kind is a Kind for one client.
type bound struct {
	typeURL string
	get     func(c *derive.Context, name string) *xds.Resource
	watch   func(w *derive.Watcher, name string, tag any) *derive.Hold
	origins func(c *derive.Context, name string) []derive.Origin
	// nil if the type is asked for by name alone
	all      func(c *derive.Context) []*xds.Resource
	watchAll func(w *derive.Watcher, tag any) *derive.Hold
}

// NewBackend makes a Backend of kinds. serves says which clients are its own; parse makes a client's key, which must
// hold all that its configuration depends on. Kinds are pushed in the order given, after those that order.go knows.
func NewBackend[C comparable](serves func(c *xds.Client) bool, parse func(c *xds.Client) (C, error), kinds ...Kind[C]) Backend {
	return backend[C]{serves, parse, kinds}
}

type backend[C comparable] struct {
	mine  func(c *xds.Client) bool
	parse func(c *xds.Client) (C, error)
	kinds []Kind[C]
}

func (b backend[C]) serves(c *xds.Client) bool { return b.mine(c) }

func (b backend[C]) bind(c *xds.Client) ([]bound, error) {
	client, err := b.parse(c)
	if err != nil {
		return nil, err
	}
	kinds := make([]bound, len(b.kinds))
	for i, k := range b.kinds {
		kinds[i] = k.bind(client)
	}
	slices.SortStableFunc(kinds, func(a, b bound) int { return cmp.Compare(rank(a.typeURL), rank(b.typeURL)) })
	return kinds, nil
}
