// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

// of is the status of one type of the only client.
func of(w *world, typeURL string) TypeStatus {
	for _, t := range w.hub.Status()[0].Types {
		if t.TypeURL == typeURL {
			return t
		}
	}
	return TypeStatus{}
}

func rejected(t TypeStatus) string {
	var names []string
	for _, r := range t.Rejected {
		names = append(names, r.Name)
	}
	return strings.Join(names, " ")
}

func TestStatusFollowsAnswers(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "a", "1")
		w.set(typeCluster, "b", "1")
		f.Subscribe(typeCluster, []string{"none"}, nil, true)
		u := took(t, f, moment)
		s := of(w, typeCluster)
		expect(t, "sent", fmt.Sprintln(s.Sent, s.Acked, s.Waiting, s.Wildcard, s.Names, s.Resources, s.Synced()), "2  1 true 1 2 false\n")
		f.Ack(typeCluster, "another nonce")
		f.Ack(typeRoute, u.Nonce)
		expect(t, "still", fmt.Sprint(of(w, typeCluster).Waiting), "1")
		f.Ack(typeCluster, u.Nonce)
		s = of(w, typeCluster)
		expect(t, "acknowledged", fmt.Sprintln(s.Acked, s.Waiting, s.Synced()), "2 0 true\n")

		w.set(typeCluster, "a", "2")
		w.set(typeCluster, "b", "2")
		u = took(t, f, moment)
		f.Nack(typeCluster, u.Nonce, "Error adding/updating cluster(s) b: unknown field")
		s = of(w, typeCluster)
		expect(t, "in part", fmt.Sprintln(rejected(s), s.Acked, s.LastNack.Version, s.LastNack.Detail, s.Synced()),
			"b 4 4 Error adding/updating cluster(s) b: unknown field false\n")

		w.set(typeCluster, "c", "1")
		u = took(t, f, moment)
		f.Nack(typeCluster, u.Nonce, "b: still")
		s = of(w, typeCluster)
		expect(t, "refused again, as part of a complete set", fmt.Sprintln(rejected(s), s.Acked), "b 5\n")
		w.set(typeCluster, "b", "3")
		u = took(t, f, moment)
		expect(t, "b, while nothing is answered", rejected(of(w, typeCluster)), "b")
		f.Ack(typeCluster, u.Nonce)
		s = of(w, typeCluster)
		expect(t, "mended", fmt.Sprint(rejected(s), s.Synced(), s.LastNack != nil), "true true")

		w.set(typeCluster, "a", "3")
		w.set(typeCluster, "b", "4")
		u = took(t, f, moment)
		f.Nack(typeCluster, u.Nonce, "no")
		s = of(w, typeCluster)
		expect(t, "which, it does not say", fmt.Sprintln(rejected(s), s.Acked), "a b 6\n")
		w.set(typeCluster, "a", "")
		said(t, f, time.Second)
		expect(t, "what is gone is not rejected", rejected(of(w, typeCluster)), "b")
	})
}

// Who does not answer is not taken for one that agrees, however long it goes on.
func TestAnswersThatNeverCome(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.set(typeCluster, "a", "1")
		w.set(typeCluster, "b", "1")
		f.Subscribe(typeCluster, nil, nil, true)
		f.Ack(typeCluster, took(t, f, moment).Nonce)
		enforced := func() string {
			k := thing{typeCluster, "a"}
			e := w.hub.Enforcement(derive.Origin{Table: "things", Key: k}, w.things.Holds(k), nil)
			return fmt.Sprintf("%d of %d, %d waiting", e.Enforced, e.Concerned, len(e.Waiting))
		}
		expect(t, "answered", enforced(), "1 of 1, 0 waiting")
		w.set(typeCluster, "a", "2")
		took(t, f, moment)
		for i := range maxWaiting - 1 {
			w.set(typeCluster, "b", fmt.Sprint(i+2))
			took(t, f, moment)
		}
		expect(t, "not answered", enforced(), "0 of 1, 1 waiting")
		w.set(typeCluster, "b", "last")
		_, err := f.Next(t.Context())
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("the stream ends with %v", err)
		}
	})
}

func TestMentions(t *testing.T) {
	for _, c := range []struct {
		text, name string
		want       bool
	}{
		{"80: no such cluster", "80", true},
		{"8080: no such cluster", "80", false},
		{"cluster(s) outbound|80||a.b: bad", "outbound|80||a.b", true},
		{"cluster(s) outbound|80||a.b.c: bad", "outbound|80||a.b", false},
		{"the trouble is with a.", "a", true},
		{"web.shop is bad, so is shop", "shop", true},
		{"web.shop is bad", "shop", false},
		{"'a' and \"b\"", "b", true},
		{"", "a", false},
		{"a", "", false},
	} {
		if got := mentions(c.text, c.name); got != c.want {
			t.Errorf("%q mentions %q: %v", c.text, c.name, got)
		}
	}
}

// A listener is opened after it is accepted; what the client says of an update last counts.
func TestAnAnswerMayBeReplaced(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		state := func() string { return rejected(of(w, typeListener)) }
		w.set(typeListener, "a", "1")
		w.set(typeListener, "b", "1")
		f.Subscribe(typeListener, nil, nil, true)
		u := took(t, f, moment)
		f.Ack(typeListener, u.Nonce)
		expect(t, "accepted", state(), "")
		f.Nack(typeListener, u.Nonce, "a: the port is taken")
		expect(t, "not open", state(), "a")
		f.Nack(typeListener, u.Nonce, "a: the port is taken; b: the port is taken, too")
		expect(t, "both not open", state(), "a b")
		f.Nack(typeListener, u.Nonce, "b: the port is taken, too")
		expect(t, "one open", state(), "b")
		w.set(typeListener, "a", "2")
		v := took(t, f, moment)
		f.Nack(typeListener, v.Nonce, "a: nonsense")
		f.Ack(typeListener, u.Nonce)
		expect(t, "the older update is in force", state(), "a")
		f.Nack(typeListener, "1-99", "other: who is that?")
		expect(t, "what the client does not have", state(), "a")
	})
}

// What a long reason names is not in force, wherever it names it; nor is what it might have named, had it not been cut.
func TestLongReasons(t *testing.T) {
	reason := func(names ...string) string {
		var parts []string
		for _, n := range names {
			parts = append(parts, n+": "+strings.Repeat("y", 400))
		}
		return strings.Join(parts, "; ")
	}
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("c%02d", i))
	}
	script(t, func(t *testing.T, w *world, f *feed) {
		for _, n := range append(names, "fine") {
			w.set(typeCluster, n, "1")
			w.set(typeListener, n, "1")
		}
		f.Subscribe(typeCluster, nil, nil, true)
		u := took(t, f, moment)
		f.Nack(typeCluster, u.Nonce, reason(names...))
		s := of(w, typeCluster)
		expect(t, "named beyond what is kept", rejected(s), strings.Join(names, " "))
		if n := len(s.Rejected[19].Detail); n != maxDetail || len(s.LastNack.Detail) != maxDetail || s.Acked == "" {
			t.Errorf("%d bytes are kept, and %d; acknowledged %q", n, len(s.LastNack.Detail), s.Acked)
		}

		// The first answer to listeners, and the one that replaces an acknowledgement.
		f.Subscribe(typeListener, nil, nil, true)
		u = took(t, f, moment)
		f.Nack(typeListener, u.Nonce, reason(names[:8]...)+"…")
		s = of(w, typeListener)
		expect(t, "cut", rejected(s), strings.Join(append(names, "fine"), " "))
		if d := s.Rejected[20].Detail; !strings.HasPrefix(d, unsaid) || s.Acked != "" {
			t.Errorf("fine is refused: %.60s; acknowledged %q", d, s.Acked)
		}
		f.Nack(typeListener, u.Nonce, reason(names[:8]...)+"...(truncated)")
		expect(t, "cut again", rejected(of(w, typeListener)), strings.Join(append(names, "fine"), " "))
		f.Ack(typeListener, u.Nonce)
		expect(t, "open", rejected(of(w, typeListener)), "")
		w.set(typeListener, "later", "1")
		v := took(t, f, moment)
		f.Ack(typeListener, v.Nonce)
		f.Nack(typeListener, v.Nonce, "later: "+strings.Repeat("y", mostSent))
		expect(t, "other updates", rejected(of(w, typeListener)), "later")
		f.Nack(typeListener, u.Nonce, "c00: "+strings.Repeat("y", mostSent))
		for _, r := range of(w, typeListener).Rejected {
			if cutShort := strings.HasPrefix(r.Detail, unsaid); cutShort == (r.Name == "later" || r.Name == "c00") {
				t.Errorf("%s: %.60s", r.Name, r.Detail)
			}
		}
	})
}

// Whose fault it is not is not said to be.
func TestBlamed(t *testing.T) {
	names := []string{"a", "b", "80", "edge.shop:80"}
	for _, c := range []struct{ detail, want string }{
		{"a: there is no cluster b", "a"},
		{"a: no; b: neither", "a b"},
		{"edge.shop:80: port 80 is taken by a", "edge.shop:80"},
		{"Error adding/updating listener(s) a: cannot bind '0.0.0.0:80'\nb: no", "a b"},
		{"cluster b is of no use", "b"},
		{"something is wrong", ""},
	} {
		if got := strings.Join(slices.Sorted(maps.Keys(blamed(c.detail, names))), " "); got != c.want {
			t.Errorf("%q blames %q, want %q", c.detail, got, c.want)
		}
	}
}

// A row that was read for what is refused, and has no part in it, is in force.
func TestARowWithoutAPartIsNotBlamed(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.hub.cfg.Blames = func(r *xds.Resource, row derive.Origin) bool { return row.Key.(thing).name == r.Name }
		w.set(typeCluster, "a", "1")
		w.set(typeCluster, "b", "1")
		enforced := func(name string) string {
			k := thing{typeCluster, name}
			e := w.hub.Enforcement(derive.Origin{Table: "things", Key: k}, w.things.Holds(k), nil)
			return fmt.Sprintf("%d of %d, %d waiting, %d rejecting", e.Enforced, e.Concerned, len(e.Waiting), len(e.Rejecting))
		}
		f.Subscribe(typeCluster, nil, nil, true)
		u := took(t, f, moment)
		f.Nack(typeCluster, u.Nonce, "a: there is no b")
		expect(t, "refused", enforced("a"), "0 of 1, 0 waiting, 1 rejecting")
		expect(t, "mentioned", enforced("b"), "1 of 1, 0 waiting, 0 rejecting")
		w.set(typeCluster, "a", "2")
		took(t, f, moment)
		expect(t, "on its way", enforced("a"), "0 of 1, 1 waiting, 1 rejecting")
		expect(t, "beside it", enforced("b"), "1 of 1, 0 waiting, 0 rejecting")
	})
}

// What only a table of routes says is in force nowhere while the listener that it is for is not open.
func TestRoutesOfAListenerThatIsNotOpen(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		w.hub.cfg.Refers = func(l *xds.Resource, table string) bool { return l.Version == table }
		state := func(name string) string {
			k := thing{typeRoute, name}
			e := w.hub.Enforcement(derive.Origin{Table: "things", Key: k}, w.things.Holds(k), nil)
			return fmt.Sprint(e.Enforced, " of ", e.Concerned, rejectedBy(e))
		}
		w.set(typeListener, "a", "one")
		w.set(typeListener, "b", "two")
		w.set(typeRoute, "one", "1")
		w.set(typeRoute, "two", "1")
		f.Subscribe(typeListener, nil, nil, true)
		listeners := took(t, f, moment)
		f.Ack(typeListener, listeners.Nonce)
		f.Subscribe(typeRoute, []string{"one", "two"}, nil, false)
		f.Ack(typeRoute, took(t, f, moment).Nonce)
		expect(t, "both open", state("one")+state("two"), "1 of 1"+"1 of 1")
		f.Nack(typeListener, listeners.Nonce, "a: the port is taken")
		expect(t, "one not open", state("one")+state("two"), "0 of 1 a"+"1 of 1")
		f.Ack(typeListener, listeners.Nonce)
		expect(t, "open again", state("one")+state("two"), "1 of 1"+"1 of 1")
		w.set(typeListener, "a", "two")
		f.Nack(typeListener, took(t, f, moment).Nonce, "a: nonsense")
		expect(t, "what is refused leaves the older one open", state("one")+state("two"), "1 of 1"+"1 of 1")
	})
}

func rejectedBy(e Enforcement) (names string) {
	for _, r := range e.Rejecting {
		names += " " + r.Name
	}
	return names
}

func TestEnforcement(t *testing.T) {
	script(t, func(t *testing.T, w *world, f *feed) {
		other := w.open(t, "other", "y")
		enforced := func(name string) string {
			k := thing{typeCluster, name}
			e := w.hub.Enforcement(derive.Origin{Table: "things", Key: k}, w.things.Holds(k), nil)
			s := fmt.Sprintf("%d of %d", e.Enforced, e.Concerned)
			if len(e.Waiting) > 0 {
				s += fmt.Sprint(", waiting for ", e.Waiting)
			}
			for _, r := range e.Rejecting {
				s += fmt.Sprintf(", %s rejects %s", r.Client, r.Name)
			}
			if !e.Settled {
				s += ", more to come"
			}
			return s
		}
		w.set(typeCluster, "a", "1")
		w.set(typeCluster, "b", "1")
		expect(t, "nobody asked", enforced("a"), "0 of 0")
		f.Subscribe(typeCluster, nil, nil, true)
		expect(t, "asked", enforced("a"), "0 of 0, more to come")
		u := took(t, f, moment)
		expect(t, "sent", enforced("a"), "0 of 1, waiting for [sidecar-1], more to come")
		f.Ack(typeCluster, u.Nonce)
		expect(t, "acknowledged", enforced("a"), "1 of 1")
		other.Subscribe(typeCluster, []string{"a"}, nil, false)
		u = took(t, other, moment)
		other.Nack(typeCluster, u.Nonce, "a: no")
		expect(t, "refused by one", enforced("a"), "1 of 2, other-1 rejects a")
		expect(t, "another row", enforced("b"), "1 of 1")
		w.set(typeCluster, "a", "2")
		expect(t, "changed", enforced("a"), "0 of 2, waiting for [other-1 sidecar-1], more to come")
		u = took(t, f, moment)
		f.Nack(typeCluster, u.Nonce, "a: neither")
		said(t, other, moment)
		expect(t, "refused by the other", enforced("a"), "1 of 2, sidecar-1 rejects a")
		expect(t, "what is beside it in the same list", enforced("b"), "1 of 1")
	})
}
