// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package push

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/xds"
)

// maxWaiting is how many updates of one type may wait for an answer; with one more the stream is ended. It is
// what the xds server remembers.
const maxWaiting = 256

// maxDetail is the longest rejection that is kept, in bytes; maxSought is how much of one is read.
const (
	maxDetail = 4 << 10
	maxSought = 64 << 10
)

// A ClientStatus is what one connected proxy has and what it made of it.
type ClientStatus struct {
	ID          string // of the stream
	Node        string
	Identity    string // verified SPIFFE ID, or empty
	RemoteAddr  string
	Delta       bool
	ConnectedAt time.Time
	Types       []TypeStatus // in the order of pushing
}

// A TypeStatus is about one resource type of one proxy. Versions are of the control plane's rows.
type TypeStatus struct {
	TypeURL   string
	Wildcard  bool
	Names     int       // asked for by name
	Resources int       // sent and not removed
	Sent      string    // version of the newest update; empty before the first
	SentAt    time.Time // of that
	Acked     string    // version of the newest update that was accepted, wholly or in part
	AckedAt   time.Time // of that
	Waiting   int       // updates not yet answered
	Rejected  []Rejection
	LastNack  *Nack // the last refusal, even if it has been mended since
}

// A Rejection is a resource that a proxy refused. What it had under that name before stays in force there.
type Rejection struct {
	Client  string // the stream's ID
	TypeURL string
	Name    string
	Version string
	Detail  string // as the proxy put it

	aliases  []string
	nonce    string // of the update it came in
	unopened bool   // it was accepted before: a listener whose sockets cannot be opened
}

// A Nack is one refusal, as the proxy put it.
type Nack struct {
	Version string
	Detail  string
	At      time.Time
}

// Synced reports whether everything that was sent is in force.
func (t *TypeStatus) Synced() bool { return t.Waiting == 0 && len(t.Rejected) == 0 }

// answers is what a client said to the updates of one type. Guarded by its feed's mu.
type answers struct {
	typeURL  string
	wildcard bool
	names    int
	size     int
	sent     string
	sentAt   time.Time
	acked    string
	ackedAt  time.Time
	waiting  []*xds.Update // oldest first
	rejected map[string]Rejection
	nack     *Nack
	held     map[string][]string // listeners the client has, with their aliases
	from     map[string]string   // of those: the nonce of the update that was answered last
}

func (a *answers) expect(u *xds.Update, now time.Time) {
	a.sent, a.sentAt = u.Version, now
	a.waiting = append(a.waiting, u)
	for _, n := range u.Removed {
		delete(a.rejected, n)
	}
}

// wants notes what the client wants now; what it does not want any more is not rejected any more.
func (a *answers) wants(t *topic) {
	a.wildcard, a.names, a.size = t.wildcard, len(t.items), t.size()
	if a.typeURL == typeListener {
		a.held = t.resources()
		maps.DeleteFunc(a.from, func(n, _ string) bool { _, has := a.held[n]; return !has })
	}
	for n := range a.rejected {
		if !t.listed(n) && !slices.ContainsFunc(slices.Collect(maps.Values(t.items)), func(it *item) bool {
			return it.last != nil && it.last.Name == n
		}) {
			delete(a.rejected, n)
		}
	}
}

// take finds the update with that nonce among those that wait.
func (a *answers) take(nonce string) *xds.Update {
	i := slices.IndexFunc(a.waiting, func(u *xds.Update) bool { return u.Nonce == nonce })
	if i < 0 {
		return nil
	}
	u := a.waiting[i]
	a.waiting = slices.Delete(a.waiting, i, i+1)
	return u
}

// Ack notes that an update is in force.
func (f *feed) Ack(typeURL, nonce string) { f.answered(typeURL, nonce, nil) }

// Nack notes that an update was refused: those of its resources that detail names, or all if it names none.
func (f *feed) Nack(typeURL, nonce, detail string) { f.answered(typeURL, nonce, &detail) }

func (f *feed) answered(typeURL, nonce string, detail *string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.answers[typeURL]
	if a == nil {
		return
	}
	now := time.Now()
	f.active = now
	why := ""
	if detail != nil {
		why = (*detail)[:min(len(*detail), maxSought)]
	}
	switch u := a.take(nonce); {
	case u == nil:
		a.again(nonce, why, f.client.ID, now)
	case detail == nil:
		a.accept(u, now)
	default:
		a.refuse(u, why, f.client.ID, now)
	}
	f.poke()
	f.hub.cfg.Changed()
}

func (a *answers) accept(u *xds.Update, now time.Time) {
	a.acked, a.ackedAt = u.Version, now
	a.note(u)
	for i := range u.Resources {
		delete(a.rejected, u.Resources[i].Name)
	}
}

// note remembers which listeners u brought: more may be said of them later.
func (a *answers) note(u *xds.Update) {
	if a.typeURL != typeListener {
		return
	}
	if a.from == nil {
		a.from = map[string]string{}
	}
	for i := range u.Resources {
		a.from[u.Resources[i].Name] = u.Nonce
	}
}

func (a *answers) refuse(u *xds.Update, detail, client string, now time.Time) {
	a.note(u)
	kept, more := keep(detail), cut(detail)
	a.nack = &Nack{u.Version, kept, now}
	var names []string
	for i := range u.Resources {
		names = append(names, u.Resources[i].Name)
	}
	named := blamed(detail, slices.AppendSeq(names, maps.Keys(a.rejected))) // a complete set holds what was refused before
	all := len(named) == 0
	if !all && !more {
		a.acked, a.ackedAt = u.Version, now
	}
	for i := range u.Resources {
		n := u.Resources[i].Name
		switch {
		case all || named[n]:
			a.rejected[n] = Rejection{client, a.typeURL, n, u.Version, kept, u.Resources[i].Aliases, u.Nonce, false}
		case more:
			a.rejected[n] = Rejection{client, a.typeURL, n, u.Version, unsaid + kept, u.Resources[i].Aliases, u.Nonce, false}
		default:
			delete(a.rejected, n)
		}
	}
}

// again is another answer to an update that was answered before: what it does not name is in force now, and of what it
// names, listeners are not any more, for these are opened after they are accepted.
func (a *answers) again(nonce, detail, client string, now time.Time) {
	kept, more := keep(detail), cut(detail)
	named := blamed(detail, slices.AppendSeq(slices.Collect(maps.Keys(a.held)), maps.Keys(a.rejected)))
	for n, r := range a.rejected {
		if r.nonce == nonce && !named[n] && !more {
			delete(a.rejected, n)
		}
	}
	if detail == "" {
		return
	}
	version, _, _ := strings.Cut(nonce, "-")
	a.nack = &Nack{version, kept, now}
	for n, aliases := range a.held {
		newer := slices.ContainsFunc(a.waiting, func(u *xds.Update) bool {
			return slices.ContainsFunc(u.Resources, func(r xds.Resource) bool { return r.Name == n })
		})
		switch {
		case newer:
		case named[n]:
			a.rejected[n] = Rejection{client, a.typeURL, n, version, kept, aliases, nonce, true}
		case more && a.from[n] == nonce:
			a.rejected[n] = Rejection{client, a.typeURL, n, version, unsaid + kept, aliases, nonce, true}
		}
	}
}

// unsaid begins the reason of what a reason might have named, had it arrived whole.
const unsaid = "perhaps refused, for the reason arrived cut short: "

// keep is what is kept of a reason.
func keep(detail string) string {
	return strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], "")
}

// mostSent is the length at which our own proxies cut a reason.
const mostSent = 16 << 10

// cut reports whether a reason may have been longer where it was made: our proxies end it in "…", Envoy in "...(truncated)".
func cut(detail string) bool {
	return len(detail) >= mostSent || strings.HasSuffix(detail, "…") || strings.HasSuffix(detail, "...(truncated)")
}

// blamed are those names of which detail says what is wrong: "NAME: why", as our proxies and Envoy put it. What else a
// reason mentions is not to blame for it. Where no name is followed by a reason, all that are mentioned are.
func blamed(detail string, names []string) map[string]bool {
	out := map[string]bool{}
	for _, subject := range []bool{true, false} {
		for _, n := range names {
			if subject && !explained(detail, n) || !subject && !mentions(detail, n) {
				continue
			}
			out[n] = true
		}
		if len(out) > 0 {
			break
		}
	}
	return out
}

// explained reports whether text holds name, a colon and a blank.
func explained(text, name string) bool {
	for at := 0; name != ""; {
		i := strings.Index(text[at:], name+": ")
		if i < 0 {
			return false
		}
		start := at + i
		if start == 0 || strings.IndexByte(" \t\n\"'", text[start-1]) >= 0 {
			return true
		}
		at = start + 1
	}
	return false
}

// mentions reports whether text holds name, and not merely as part of another name.
func mentions(text, name string) bool {
	part := func(b byte) bool {
		return b == '_' || b == '|' || b == '-' || b == '/' || b == '.' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
	}
	for at := 0; name != ""; {
		i := strings.Index(text[at:], name)
		if i < 0 {
			return false
		}
		start, end := at+i, at+i+len(name)
		before := start == 0 || !part(text[start-1])
		// A full stop ends a sentence, unless a name goes on behind it.
		after := end == len(text) || !part(text[end]) || text[end] == '.' && (end+1 == len(text) || !part(text[end+1]))
		if before && after {
			return true
		}
		at = start + 1
	}
	return false
}

// Status describes all connected proxies, by their streams' IDs.
func (h *Hub) Status() []ClientStatus {
	var all []ClientStatus
	for _, f := range h.open() {
		all = append(all, f.status())
	}
	return all
}

func (f *feed) status() ClientStatus {
	c := f.client
	s := ClientStatus{
		ID: c.ID, Node: c.Node.GetId(), Identity: c.Identity, RemoteAddr: c.RemoteAddr, Delta: c.Delta, ConnectedAt: c.ConnectedAt,
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.answers {
		t := TypeStatus{
			TypeURL: a.typeURL, Wildcard: a.wildcard, Names: a.names, Resources: a.size, Sent: a.sent, SentAt: a.sentAt,
			Acked: a.acked, AckedAt: a.ackedAt, Waiting: len(a.waiting), LastNack: a.nack,
		}
		for _, n := range slices.Sorted(maps.Keys(a.rejected)) {
			t.Rejected = append(t.Rejected, a.rejected[n])
		}
		s.Types = append(s.Types, t)
	}
	slices.SortFunc(s.Types, func(a, b TypeStatus) int {
		return cmp.Or(cmp.Compare(rank(a.TypeURL), rank(b.TypeURL)), cmp.Compare(a.TypeURL, b.TypeURL))
	})
	return s
}

// An Enforcement says on which proxies a row has come into force.
type Enforcement struct {
	Concerned int      // proxies whose configuration the row has a part in
	Enforced  int      // of these, where all of that is in force
	Waiting   []string // of these, the streams that have yet to be sent it or to answer
	Rejecting []Rejection
	// Settled: no change is under way to any proxy. Until then a proxy may yet turn out to be concerned.
	Settled bool
}

// Clients are the connected proxies.
func (h *Hub) Clients() (all []*xds.Client) {
	for _, f := range h.open() {
		all = append(all, f.client)
	}
	return all
}

// Enforcement tells where the row named o is in force; holds is what derive's Table.Holds says of that row. What is
// made for a proxy may have read a row that has no part in it: concerns says of a proxy whether the row can have one; nil: of all.
func (h *Hub) Enforcement(o derive.Origin, holds []*derive.Hold, concerns func(*xds.Client) bool) Enforcement {
	e := Enforcement{Settled: true}
	byFeed := map[*derive.Watcher][]*derive.Hold{}
	for _, hold := range holds {
		byFeed[hold.Watcher()] = append(byFeed[hold.Watcher()], hold)
	}
	for _, f := range h.open() {
		if f.unsettled() {
			e.Settled = false
		}
		mine := byFeed[f.watcher]
		if len(mine) == 0 || concerns != nil && !concerns(f.client) {
			continue
		}
		e.Concerned++
		waiting, rejecting := f.enforcement(o, mine)
		e.Rejecting = append(e.Rejecting, rejecting...)
		switch {
		case waiting:
			e.Waiting = append(e.Waiting, f.client.ID)
		case len(rejecting) == 0:
			e.Enforced++
		}
	}
	return e
}

// unsettled reports whether a change is under way.
func (f *feed) unsettled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.working || len(f.asks) > 0 || f.watcher.Pending() {
		return true
	}
	for _, a := range f.answers {
		if len(a.waiting) > 0 {
			return true
		}
	}
	return false
}

// mostAsked bounds how many resources of one update are asked about before any of them is taken to concern a row.
const mostAsked = 64

// enforcement looks at the results of one client that were made from o.
func (f *feed) enforcement(o derive.Origin, holds []*derive.Hold) (waiting bool, rejecting []Rejection) {
	var ask []func(c *derive.Context) // whether what is waited for or rejected was made from o
	f.mu.Lock()
	waiting = f.working
	for _, hold := range holds {
		t, it := hold.Tag().(tag).on()
		a := f.answers[t.typeURL]
		if hold.Pending() || a == nil {
			waiting = true
			continue
		}
		for _, u := range a.waiting {
			switch {
			case it != nil:
				waiting = waiting || slices.ContainsFunc(u.Resources, func(r xds.Resource) bool { return it.is(r.Name, r.Aliases) })
			case len(u.Resources) > mostAsked:
				waiting = true
			default:
				ask = append(ask, func(c *derive.Context) {
					waiting = waiting || slices.ContainsFunc(u.Resources, func(r xds.Resource) bool {
						return slices.Contains(t.origins(c, r.Name), o) && f.hub.cfg.Blames(&r, o)
					})
				})
			}
		}
		for n, r := range a.rejected {
			if it != nil && !it.is(n, r.aliases) {
				continue
			}
			ask = append(ask, func(c *derive.Context) {
				if it == nil && !slices.Contains(t.origins(c, n), o) {
					return
				}
				name := n
				if it != nil {
					name = it.name
				}
				if is := t.get(c, name); is == nil || f.hub.cfg.Blames(is, o) {
					rejecting = append(rejecting, r)
				}
			})
		}
	}
	ask = append(ask, f.unreachableLocked(o, holds, func(r Rejection) { rejecting = append(rejecting, r) })...)
	f.mu.Unlock()
	if len(ask) > 0 {
		f.hub.g.Read(func(c *derive.Context) {
			for _, fn := range ask {
				fn(c)
			}
		})
	}
	slices.SortFunc(rejecting, func(a, b Rejection) int {
		return cmp.Or(cmp.Compare(rank(a.TypeURL), rank(b.TypeURL)), cmp.Compare(a.Name, b.Name))
	})
	return waiting, rejecting
}

// unreachableLocked asks which of a row's tables of routes no request comes to, as the listener they are for is not open.
func (f *feed) unreachableLocked(o derive.Origin, holds []*derive.Hold, reject func(Rejection)) (ask []func(c *derive.Context)) {
	listeners := f.answers[typeListener]
	if listeners == nil {
		return nil
	}
	kind := f.find(typeListener)
	for _, r := range listeners.rejected {
		if !r.unopened {
			continue
		}
		for _, hold := range holds {
			t, table := hold.Tag().(tag).on()
			if table == nil || t.typeURL != typeRoute {
				continue
			}
			ask = append(ask, func(c *derive.Context) {
				listener, routes := kind.get(c, r.Name), t.get(c, table.name)
				if listener != nil && routes != nil && f.hub.cfg.Refers(listener, table.name) && f.hub.cfg.Blames(routes, o) {
					reject(r)
				}
			})
		}
	}
	return ask
}
