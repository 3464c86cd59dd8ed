// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"cmp"
	"slices"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
)

// Stats is what a Directory counts.
type Stats struct {
	Destinations int // of the mesh, in force
	Unknown      int // outside it, in force
	Busy         int // waiting for something to arrive
	Asked        int // questions with a subscription

	Questions uint64 // asked so far
	Held      uint64 // connections that waited
	HeldFor   time.Duration
	HeldMost  time.Duration
	Failed    uint64 // connections that got a fault, or the default in its place
	Refused   uint64 // of these, for a limit
	Dropped   uint64 // destinations unused for a while
	Evicted   uint64 // destinations that made room
}

func (s *Stats) held(took time.Duration) {
	s.Held++
	s.HeldFor += took
	s.HeldMost = max(s.HeldMost, took)
}

func (d *Directory) countLocked(f *fault.Fault) {
	if f != nil {
		d.stats.Failed++
	}
}

// Stats returns the counts of the moment.
func (d *Directory) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Busy, s.Asked, s.Unknown = len(d.busy), len(d.questions), d.unknown
	for _, e := range d.entries {
		if cur := e.cur.Load(); cur != nil && cur.Known {
			s.Destinations++
		}
	}
	return s
}

// A Status is one destination, for people.
type Status struct {
	Target   string        `json:"target"`
	Known    bool          `json:"known"`
	Service  string        `json:"service,omitempty"` // namespace/host
	Protocol string        `json:"protocol,omitempty"`
	Users    int64         `json:"connections"`
	Idle     time.Duration `json:"idle_ns"`
	Missing  string        `json:"waits_for,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// List describes all destinations, by target.
func (d *Directory) List() []Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]Status, 0, len(d.entries))
	for t, e := range d.entries {
		s := Status{Target: t.String(), Missing: e.missing}
		if e.err != nil {
			s.Error = e.err.Error()
		}
		if cur := e.cur.Load(); cur != nil {
			s.Known, s.Users = cur.Known, cur.users.Load()
			s.Idle = max(0, time.Duration(d.clock.Load()-cur.used.Load()))
			if cur.Service != nil {
				s.Service = string(cur.Service.Namespace) + "/" + string(cur.Service.Host)
			}
			if cur.Known {
				s.Protocol = cur.Protocol.String()
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Target, b.Target) })
	return out
}
