// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meltemi/meltemi/xds"
)

// TestClientsEndWithWhatTheyWant changes resources and subscriptions at random; whatever the order, a client
// that applies what it is sent ends with exactly what it wants, as the world has it.
func TestClientsEndWithWhatTheyWant(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) { newWalk(t, seed).run() })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

type walk struct {
	t     *testing.T
	r     *rand.Rand
	w     *world
	f     *feed
	types []string
	rows  map[thing]string // text by resource
	want  map[string]*wanted
}

// wanted is what the client wants and has of one type.
type wanted struct {
	all  bool
	by   map[string]bool
	has  map[string]string // text by name
	full bool              // a first answer came
}

func newWalk(t *testing.T, seed uint64) *walk {
	w := newWorld(Config{})
	return &walk{
		t: t, r: rand.New(rand.NewPCG(seed, 3)), w: w, f: w.open(t, "sidecar", "z"),
		types: []string{typeCluster, typeEndpoint, typeListener, typeRoute, typeAddress},
		rows:  map[thing]string{}, want: map[string]*wanted{},
	}
}

func (k *walk) name() string { return string(rune('a' + k.r.IntN(5))) }

func (k *walk) run() {
	for range 60 {
		typeURL := k.types[k.r.IntN(len(k.types))]
		switch k.r.IntN(5) {
		case 0, 1:
			k.change(typeURL)
		case 2, 3:
			k.subscribe(typeURL)
		case 4:
			k.receive(time.Duration(k.r.IntN(20)) * time.Millisecond)
		}
	}
	k.receive(time.Minute)
	k.compare()
}

func (k *walk) change(typeURL string) {
	name, text := k.name(), fmt.Sprint(k.r.IntN(3))
	if k.r.IntN(3) == 0 {
		text = ""
	}
	k.w.set(typeURL, name, text)
	k.rows[thing{typeURL, name}] = text
}

func (k *walk) subscribe(typeURL string) {
	x := k.want[typeURL]
	if x == nil {
		x = &wanted{by: map[string]bool{}, has: map[string]string{}}
		k.want[typeURL] = x
	}
	var add, remove []string
	if n := k.name(); k.r.IntN(2) == 0 {
		add = []string{n}
		x.by[n] = true
	}
	if n := k.name(); k.r.IntN(3) == 0 && x.by[n] && !slices.Contains(add, n) {
		remove = []string{n}
		delete(x.by, n)
	}
	wild := typeURL == typeCluster || typeURL == typeListener || typeURL == typeAddress
	x.all = wild && k.r.IntN(2) == 0
	k.f.Subscribe(typeURL, add, remove, x.all)
	k.forget(x)
}

// forget drops what the client does not want any more.
func (k *walk) forget(x *wanted) {
	maps.DeleteFunc(x.has, func(n, _ string) bool { return !x.all && !x.by[n] })
}

func (k *walk) receive(d time.Duration) {
	for until := time.Now().Add(d); ; {
		u := took(k.t, k.f, time.Until(until))
		if u == nil {
			return
		}
		k.apply(u)
		if k.r.IntN(4) > 0 {
			k.f.Ack(u.TypeURL, u.Nonce)
		}
	}
}

func (k *walk) apply(u *xds.Update) {
	x := k.want[u.TypeURL]
	if u.Full {
		x.full = true
	} else if !x.full {
		k.t.Errorf("%s: not a full first answer", short(u.TypeURL))
	}
	for _, r := range u.Resources {
		x.has[r.Name] = r.Version
	}
	for _, n := range u.Removed {
		delete(x.has, n)
	}
	k.forget(x)
}

func (k *walk) compare() {
	for typeURL, x := range k.want {
		want := map[string]string{}
		for row, text := range k.rows {
			if row.typeURL == typeURL && text != "" && (x.all || x.by[row.name]) {
				want[row.name] = text
			}
		}
		for n := range x.by {
			if _, ok := want[n]; !ok && (typeURL == typeEndpoint || typeURL == typeRoute) {
				want[n] = "empty"
			}
		}
		if !x.full || !maps.Equal(x.has, want) {
			k.t.Errorf("%s: the client has %v, want %v (full %v)", short(typeURL), x.has, want, x.full)
		}
	}
}
