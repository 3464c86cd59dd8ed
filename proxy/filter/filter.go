// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"errors"
	"fmt"

	"github.com/meltemi/meltemi/proxy/fault"
)

// A Filter takes part in exchanges. One value serves many exchanges at once.
type Filter interface {
	// OnRequest may change the request's head, wait (Exchange.Hold), answer
	// (Exchange.Answer), or stop the exchange with a fault.
	OnRequest(*Exchange) *fault.Fault
	// OnResponse may change the response's head before it is sent. It is called
	// also for answers of our own, whether or not OnRequest was.
	OnResponse(*Exchange)
	// OnEnd sees the exchange when all is known of it. It may not block.
	OnEnd(*Exchange)
}

// A Guard is a filter that authorizes: its OnRequest calls Exchange.Grant or
// returns a fault.
type Guard interface {
	Filter
	Guards()
}

// A MessageCounter is a filter that counts the messages of gRPC calls as they pass.
type MessageCounter interface {
	Filter
	// Messages returns where those of x count; nil: nowhere. It is called when the response's head is there, or
	// else before OnEnd. What it returns is used by several goroutines, and after OnEnd no more.
	Messages(*Exchange) MessageMeter
}

// A MessageMeter counts messages that have begun to pass. shard spreads those who count at once.
type MessageMeter interface {
	Count(shard, request, response uint64)
}

// Pass does nothing; filters embed it for the methods they do not need.
type Pass struct{}

// OnRequest lets the request pass.
func (Pass) OnRequest(*Exchange) *fault.Fault { return nil }

// OnResponse lets the response pass.
func (Pass) OnResponse(*Exchange) {}

// OnEnd does nothing.
func (Pass) OnEnd(*Exchange) {}

// An Entry is one filter of a chain.
type Entry struct {
	Name string // as configured; routes address their settings to it
	Filter
	// Disabled: runs only for routes that have a setting for it that is not disabled.
	Disabled bool
}

// Access says how a chain comes to its permits. There is no default.
type Access uint8

const (
	// Guarded: the chain has at least one Guard, and every one that runs must grant.
	Guarded Access = iota + 1
	// Open: no policy applies to this chain, so every request is permitted. A
	// chain that contains a Guard cannot be Open.
	Open
)

// A Chain is an ordered list of filters, outermost first.
type Chain struct {
	access  Access
	entries []Entry
	guards  []bool
}

// NewChain builds a chain. Access must agree with the entries: it is stated by
// who reads the configuration, so that a policy lost on the way is an error here
// and not an open door.
func NewChain(access Access, entries ...Entry) (*Chain, error) {
	c := &Chain{access: access, entries: entries, guards: make([]bool, len(entries))}
	guards := 0
	for i, e := range entries {
		if e.Filter == nil {
			return nil, fmt.Errorf("filter chain: entry %d (%q) has no filter", i, e.Name)
		}
		if _, ok := e.Filter.(Guard); ok {
			c.guards[i] = true
			guards++
		}
	}
	switch {
	case access != Guarded && access != Open:
		return nil, errors.New("filter chain: say whether it is Guarded or Open")
	case access == Open && guards > 0:
		return nil, fmt.Errorf("filter chain: said to be Open, but %d of its filters authorize", guards)
	case access == Guarded && guards == 0:
		return nil, errors.New("filter chain: said to be Guarded, but none of its filters authorizes")
	}
	return c, nil
}

// Entries returns the filters, outermost first; not to be changed.
func (c *Chain) Entries() []Entry { return c.entries }

// Each calls visit for every filter that takes part in exchanges of a route with
// these settings, in order, with what the route says to it; nil is nothing.
func (c *Chain) Each(settings []Setting, visit func(e *Entry, setting any)) {
	x := Exchange{settings: settings}
	for i := range c.entries {
		e := &c.entries[i]
		if c.off(&x, e) {
			continue
		}
		var value any
		if s := x.find(e.Name); s != nil {
			value = s.Value
		}
		visit(e, value)
	}
}

// A Permit proves that a chain has admitted an exchange. Only Admit makes valid ones.
type Permit struct{ valid bool }

// Valid is false for a Permit that no chain gave.
func (p Permit) Valid() bool { return p.valid }

// Admit runs OnRequest of the filters in order. It stops at the first fault, and
// at the first answer (Exchange.Local), for which there is no permit either.
func (c *Chain) Admit(x *Exchange) (Permit, *fault.Fault) {
	x.chain, x.granted = c, 0
	needed := 0
	for i := range c.entries {
		e := &c.entries[i]
		if c.off(x, e) {
			continue
		}
		if c.guards[i] {
			needed++
		}
		x.slot = i
		if f := e.OnRequest(x); f != nil {
			return Permit{}, f
		}
		if x.Local.Status != 0 {
			return Permit{}, nil
		}
	}
	if x.granted < needed || c.access == 0 {
		return Permit{}, ungranted
	}
	return Permit{valid: true}, nil
}

var ungranted = &fault.Fault{Side: fault.Mesh, Kind: fault.Internal, Status: 403,
	Details: "filter_chain_gave_no_permit", Hint: "a filter that authorizes neither granted nor denied; this is a defect of the proxy"}

// Respond runs OnResponse of all filters, innermost first.
func (c *Chain) Respond(x *Exchange) {
	x.chain = c
	for i := len(c.entries) - 1; i >= 0; i-- {
		if e := &c.entries[i]; !c.off(x, e) {
			x.slot = i
			e.OnResponse(x)
		}
	}
}

// Meters appends those of the filters that count messages.
func (c *Chain) Meters(x *Exchange, to []MessageMeter) []MessageMeter {
	x.chain = c
	for i := range c.entries {
		if f, ok := c.entries[i].Filter.(MessageCounter); ok && !c.off(x, &c.entries[i]) {
			x.slot = i
			if m := f.Messages(x); m != nil {
				to = append(to, m)
			}
		}
	}
	return to
}

// End runs OnEnd of all filters, innermost first.
func (c *Chain) End(x *Exchange) {
	x.chain = c
	for i := len(c.entries) - 1; i >= 0; i-- {
		if e := &c.entries[i]; !c.off(x, e) {
			x.slot = i
			e.OnEnd(x)
		}
	}
}

// off says whether e sits this exchange out. Without settings that costs nothing.
func (c *Chain) off(x *Exchange, e *Entry) bool {
	if len(x.settings) == 0 {
		return e.Disabled
	}
	if s := x.find(e.Name); s != nil {
		return s.Disabled
	}
	return e.Disabled
}
