// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"math"
	"sync/atomic"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/wire/workload"
)

// Protocol is what a destination speaks.
type Protocol uint8

// The protocols.
const (
	Unset Protocol = iota // to be found out from the first bytes
	HTTP
	TCP
	TLS
)

func (p Protocol) String() string { return [...]string{"unset", "HTTP", "TCP", "TLS"}[p] }

// A Destination is where a connection goes, ready for the data path. It does not
// change: when the destination does, the next Lookup returns another one.
type Destination struct {
	// Known is false for what is no port of a service of the mesh: TCP then does
	// what the mesh's outbound policy says.
	Known     bool
	Protocol  Protocol
	Host      mesh.Hostname
	Namespace mesh.Namespace
	Port      uint16
	// Service is what the address or name belongs to; nil if it is no service's.
	Service *Service
	// Workload is set where a single workload was addressed.
	Workload *workload.Workload

	// HTTP conducts what is HTTP; nil where nothing may be: Protocol TCP and TLS,
	// and unknown destinations. TCP conducts all other bytes. Where there is a
	// Listener, its chains decide instead.
	HTTP *config.FilterChain
	TCP  *config.FilterChain

	listener *config.ListenerRef // may be nil
	plan     plan
	template *template
	need     config.Need // wanted of the store
	early    config.Need // wanted until d is in force
	entry    *entry      // once d was replaced: by what

	clock *atomic.Int64 // nil: nobody counts
	users atomic.Int64  // connections; below 0: gone
	used  atomic.Int64  // when, by clock
}

// A template is what destinations are made of.
type template struct {
	chain   *config.FilterChain // the one with OnDemand
	unknown *config.FilterChain // the chain of destinations that are nobody's
}

func newTemplate(chain *config.FilterChain) *template {
	t := &template{chain: chain}
	t.unknown = t.tcp(chain.OnDemand.TCP)
	return t
}

// tcp is the chain for bytes. It keeps the name, the match and what looks on.
func (t *template) tcp(tcp *config.TCP) *config.FilterChain {
	c := *t.chain
	c.OnDemand, c.TCP = nil, tcp
	return &c
}

func (t *template) http(routes *config.RouteRef) *config.FilterChain {
	c := *t.chain
	c.OnDemand, c.HTTP = nil, t.chain.OnDemand.HTTP.For(routes)
	return &c
}

// Name is "host:port" of what d is; "" if it is nobody's.
func (d *Destination) Name() string {
	if !d.Known {
		return ""
	}
	return target{host: string(d.Host), port: d.Port}.String()
}

// Listener returns the listener whose filter chains conduct connections to d, as
// it is now; nil where HTTP and TCP do.
func (d *Destination) Listener() *config.Listener {
	if d.listener == nil {
		return nil
	}
	return d.listener.Load()
}

// gone is what users holds once a destination is given up: no number of late
// comers makes it positive.
const gone = math.MinInt64 / 2

// Done tells that a connection that Lookup returned the Destination for is over.
func (d *Destination) Done() {
	if d.clock == nil {
		return
	}
	if now := d.clock.Load(); d.used.Load() != now {
		d.used.Store(now)
	}
	d.users.Add(-1)
}

// acquire counts a connection, unless d is gone.
func (d *Destination) acquire() bool {
	if d.users.Add(1) <= 0 {
		d.users.Add(-1)
		return false
	}
	if now := d.clock.Load(); d.used.Load() != now {
		d.used.Store(now)
	}
	return true
}

// giveUp ends d if nobody uses it.
func (d *Destination) giveUp() bool { return d.users.CompareAndSwap(0, gone) }

func (d *Destination) idle() bool { return d.users.Load() == 0 }
