// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/meltemi/meltemi/derive"
	"golang.org/x/sync/errgroup"
)

// Admit says what is wrong with an object by itself, whatever else there may be. An object with
// an Error is refused. It fills in Field, Severity and Message.
type Admit func(Entry) []Problem

// A StandIn says what is in force in place of an object of which no version was ever admitted, and what follows from
// that for its author, as a clause; nil for nothing. bad are the fields that are wrong: what e says there cannot be relied upon.
type StandIn func(e Entry, bad []string) (in Entry, consequence string)

// A Gatherer keeps the tables of Objects as its sources report.
type Gatherer struct {
	graph   *derive.Graph
	objects *Objects
	admit   Admit
	standIn StandIn
	sources []Source
	synced  chan struct{}

	mu      sync.Mutex
	waiting int                        // sources that have not synced
	held    map[Key]map[int]*candidate // by index of the source
}

// A candidate is what one source says about one object.
type candidate struct {
	good     Entry     // last version that was admitted; nil if none was
	since    time.Time // of good
	standIn  Entry     // in force if no source has a good one; may be nil
	places   *Places
	problems []Problem // of the newest version
}

// Gather adds tables to g that Run will fill with what sources report and admit admits,
// and with what stands in for objects that are refused from the first.
// Of two sources that report one object the earlier wins, unless what it reports [Yields].
func Gather(g *derive.Graph, admit Admit, standIn StandIn, sources ...Source) *Gatherer {
	return &Gatherer{
		graph: g, objects: NewObjects(g), admit: admit, standIn: standIn, sources: sources,
		synced: make(chan struct{}), waiting: len(sources), held: map[Key]map[int]*candidate{},
	}
}

// Objects are the tables.
func (g *Gatherer) Objects() *Objects { return g.objects }

// Synced is closed when all sources have reported what was there at the start.
func (g *Gatherer) Synced() <-chan struct{} { return g.synced }

// Run runs the sources until ctx ends, or until one of them fails, whose error it returns.
func (g *Gatherer) Run(ctx context.Context) error {
	if len(g.sources) == 0 {
		close(g.synced)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, s := range g.sources {
		group.Go(func() error {
			if err := s.Run(ctx, &port{g: g, source: i}); err != nil && ctx.Err() == nil {
				return fmt.Errorf("source %s: %w", s.Name(), err)
			}
			return nil
		})
	}
	return group.Wait()
}

// A port is where one source reports.
type port struct {
	g      *Gatherer
	source int
	once   sync.Once
}

// Synced implements [Sink].
func (p *port) Synced() {
	p.once.Do(func() {
		p.g.mu.Lock()
		defer p.g.mu.Unlock()
		if p.g.waiting--; p.g.waiting == 0 {
			close(p.g.synced)
		}
	})
}

// Apply implements [Sink].
func (p *port) Apply(b Batch) {
	g := p.g
	checked := make([]candidate, len(b.Put))
	for i, put := range b.Put {
		checked[i] = g.check(put)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.graph.Update(func(tx *derive.Tx) {
		var touched []Key
		for _, k := range b.Delete {
			delete(g.held[k], p.source)
			touched = append(touched, k)
		}
		for i, put := range b.Put {
			k := put.Entry.ObjectKey()
			g.hold(put, p.source, checked[i])
			touched = append(touched, k)
		}
		slices.SortFunc(touched, Key.Compare)
		for _, k := range slices.Compact(touched) {
			g.settle(tx, k)
		}
		for _, r := range b.Report {
			about := g.sources[p.source].Name() + ":" + r.About
			if len(r.Problems) == 0 {
				g.objects.Problems.Delete(tx, about)
			} else {
				g.objects.Problems.Set(tx, about, r.Problems)
			}
		}
	})
}

// check is what the newest version of an object looks like by itself.
func (g *Gatherer) check(put Put) candidate {
	c := candidate{good: put.Entry, since: put.Since, places: put.Places}
	if put.Refused != nil {
		c.good = nil
		return c
	}
	for _, p := range g.admit(put.Entry) {
		p.Object = put.Entry.ObjectKey()
		p.Place = put.Places.Of(p.Field)
		c.problems = append(c.problems, p)
		if p.Severity == Error {
			c.good = nil
		}
	}
	return c
}

// hold remembers next as what source says about an object. Where next is refused, the last good version stays; if
// there is none, something may stand in.
func (g *Gatherer) hold(put Put, source int, next candidate) {
	k := put.Entry.ObjectKey()
	if g.held[k] == nil {
		g.held[k] = map[int]*candidate{}
	}
	last := g.held[k][source]
	switch {
	case next.good != nil && last != nil && last.good == next.good:
		next.since = last.since // it has only moved
	case next.good != nil && next.since.IsZero():
		next.since = time.Now()
	}
	if next.good == nil {
		says := StaysInForce
		if last != nil && last.good != nil {
			next.good, next.since, next.places = last.good, last.since, last.places
		} else {
			says = g.replace(put, &next)
		}
		i := slices.IndexFunc(next.problems, func(p Problem) bool { return p.Severity == Error })
		if i >= 0 {
			next.problems[i].Message += says
		}
	}
	g.held[k][source] = &next
}

// replace asks what stands in for an object, and returns what its first problem is to say of that. Where the source
// has refused the object, its problems are the source's, and the consequence is one of its own.
func (g *Gatherer) replace(put Put, next *candidate) string {
	bad := slices.Clone(put.Refused)
	for _, p := range next.problems {
		if p.Severity == Error {
			bad = append(bad, p.Field)
		}
	}
	in, consequence := g.standIn(put.Entry, bad)
	if in == nil {
		return ""
	}
	next.standIn = in
	if put.Refused != nil {
		next.problems = append(next.problems, Problem{Object: in.ObjectKey(), Place: put.Places.Of(""), Severity: Error,
			Message: "no version of it could be read so far; " + consequence})
		return ""
	}
	return "; " + consequence
}

// settle writes the rows of k from what the sources say about it.
func (g *Gatherer) settle(tx *derive.Tx, k Key) {
	winner, standIn := g.winner(k), -1
	var problems []Problem
	for i := range g.sources {
		c := g.held[k][i]
		if c == nil {
			continue
		}
		if c.standIn != nil && standIn < 0 {
			standIn = i
		}
		for _, p := range c.problems {
			// What is refused from the first would go first, for all that is known.
			p.Beside = p.Beside || winner >= 0 && (i > winner || i < winner && c.good != nil)
			problems = append(problems, p)
		}
		if c.good != nil && i != winner && !c.good.yields() {
			problems = append(problems, Problem{Object: k, Place: c.places.Of(""), Severity: Error, Beside: true, Message: g.first(k, winner)})
		}
	}
	if winner < 0 {
		winner = standIn
	}
	if winner < 0 {
		g.objects.remove(tx, k)
		g.objects.Places.Delete(tx, k)
	} else {
		c := g.held[k][winner]
		if c.good != nil {
			g.objects.set(tx, c.good)
		} else {
			g.objects.set(tx, c.standIn)
		}
		if c.places != nil {
			g.objects.Places.Set(tx, k, c.places)
		} else {
			g.objects.Places.Delete(tx, k)
		}
	}
	if len(g.held[k]) == 0 {
		delete(g.held, k)
	}
	if len(problems) == 0 {
		g.objects.Problems.Delete(tx, k.String())
		return
	}
	slices.SortStableFunc(problems, Problem.Compare)
	g.objects.Problems.Set(tx, k.String(), problems)
}

// winner is the source whose object k is in force: the first that has a good one which yields to no other; -1 if none has.
func (g *Gatherer) winner(k Key) int {
	winner := -1
	for i := range g.sources {
		if c := g.held[k][i]; c != nil && c.good != nil && (winner < 0 || g.held[k][winner].good.yields() && !c.good.yields()) {
			winner = i
		}
	}
	return winner
}

// first says where the object k is that goes before the others.
func (g *Gatherer) first(k Key, winner int) string {
	where := "source " + g.sources[winner].Name()
	if p := g.held[k][winner].places; p != nil {
		where = p.Of("").String()
	}
	return where + " has this object, too, and goes first"
}

// Since tells since when the version of an object that is in force is its source's last good one; the zero time if none is.
func (g *Gatherer) Since(k Key) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if winner := g.winner(k); winner >= 0 {
		return g.held[k][winner].since
	}
	return time.Time{}
}

func compareStrings(a, b string) int { return cmp.Compare(a, b) }
