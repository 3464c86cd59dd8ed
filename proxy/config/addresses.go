// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"

	"github.com/meltemi/meltemi/xds"
)

// claims are the listeners with a socket of their own that one update brought, in its order. Whether their addresses are free is known when all
// of it is: listeners may change places.
type claims struct {
	list []claim
	of   map[string]bool // by name
}

type claim struct {
	name   string
	in     *incoming
	before listenerEntry
}

// note remembers e, the entry of that name, before in changes it.
func (c *claims) note(name string, e *listenerEntry, in *incoming) {
	if c.of[name] {
		return
	}
	if c.of == nil {
		c.of = map[string]bool{}
	}
	c.of[name] = true
	c.list = append(c.list, claim{name, in, *e})
}

// refuseTaken takes back the listeners that would bind what another one binds after the update; of two that came, the
// later. One that is taken back has its old address again, which may be another's by now: that one goes back, too.
func (s *Store) refuseTaken(c *claims) (rejected []xds.Rejection) {
	for {
		i, err := s.firstTaken(c)
		if i < 0 {
			return rejected
		}
		was := c.list[i]
		*s.listeners[was.name] = was.before
		s.failListener(was.name, &failure{raw: was.in.Body, version: was.in.version, at: was.in.at, err: err})
		rejected = append(rejected, xds.Rejection{Name: was.name, Err: err})
		c.list = slices.Delete(c.list, i, i+1)
		delete(c.of, was.name)
	}
}

// firstTaken finds the first claim that cannot be granted, and why; -1: there is none.
func (s *Store) firstTaken(c *claims) (int, error) {
	if len(c.list) == 0 {
		return -1, nil
	}
	owners := map[Address]string{}
	claim := func(name string) error {
		l := s.listeners[name].latest()
		if l == nil || !l.Bind {
			return nil
		}
		for _, a := range l.Addrs {
			if a.IP.Port() == 0 {
				continue // any port, or none
			}
			if owner, taken := owners[a]; taken && owner != name {
				return fmt.Errorf("address %s is taken by listener %q", a, owner)
			}
			owners[a] = name
		}
		return nil
	}
	for name := range s.listeners {
		if !c.of[name] {
			_ = claim(name) // as it has been until now
		}
	}
	for i := range c.list {
		if err := claim(c.list[i].name); err != nil {
			return i, err
		}
	}
	return -1, nil
}
