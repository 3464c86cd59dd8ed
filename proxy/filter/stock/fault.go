// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
)

// An Injection is HTTPFault: what to do to which requests. It is also the value
// of a route's setting (*Injection), which replaces the filter's own wholly.
type Injection struct {
	Delay      time.Duration // fixed_delay; 0: none
	DelayShare route.Fraction
	// Abort with Status, or with GRPC if it is not negative, for AbortShare of requests.
	Abort      bool
	Status     int
	GRPC       int // grpc_status; -1: answer with Status
	AbortShare route.Fraction

	Cluster   string         // only requests to this cluster; "": all (upstream_cluster)
	Headers   []match.Header // all must match
	MaxActive uint32         // delays and aborts at once; 0: no limit (max_active_faults)
}

// Fault injects faults: a delay first, then an abort.
type Fault struct {
	filter.Pass
	own    *Injection // nil: only what routes say
	active atomic.Int64
}

// NewFault returns the filter; own may be nil.
func NewFault(own *Injection) *Fault { return &Fault{own: own} }

// OnRequest delays and aborts.
func (f *Fault) OnRequest(x *filter.Exchange) *fault.Fault {
	in := f.own
	if s, ok := x.Setting().(*Injection); ok {
		in = s
	}
	if in == nil {
		return nil
	}
	delay, abort := in.Plan(x)
	if !delay && !abort {
		return nil
	}
	if n := f.active.Add(1); in.MaxActive > 0 && n > int64(in.MaxActive) {
		f.active.Add(-1)
		return nil
	}
	defer f.active.Add(-1)
	if delay {
		x.Flags |= filter.DelayInjected
		if err := x.Hold(in.Delay); err != nil {
			return err
		}
	}
	if !abort {
		return nil
	}
	if in.GRPC < 0 {
		return in.fault()
	}
	x.Flags |= filter.FaultInjected
	if !x.GRPC {
		x.Answer(200, faultDetails, faultBody)
		return nil
	}
	x.Answer(200, faultDetails, "")
	x.Response.Header.Set("content-type", "application/grpc")
	x.Response.Header.Set("grpc-status", strconv.Itoa(in.GRPC))
	x.Response.Header.Set("grpc-message", faultBody)
	return nil
}

// Injection is what f injects where no route says otherwise; nil: nothing.
func (f *Fault) Injection() *Injection { return f.own }

// Plan says what chance has in store for x, the limit of active faults apart.
func (in *Injection) Plan(x *filter.Exchange) (delay, abort bool) {
	if !in.applies(x) {
		return false, false
	}
	// Two draws from one random number: its halves are independent.
	return in.Delay > 0 && hit(in.DelayShare, x.Random>>32), in.Abort && hit(in.AbortShare, x.Random&0xffffffff)
}

const (
	faultDetails = "fault_filter_abort"
	faultBody    = "fault filter abort"
)

func (in *Injection) applies(x *filter.Exchange) bool {
	if in.Cluster != "" && in.Cluster != x.Target.Cluster {
		return false
	}
	for i := range in.Headers {
		if !in.Headers[i].Match(x.Request) {
			return false
		}
	}
	return true
}

func (in *Injection) fault() *fault.Fault {
	return &fault.Fault{
		Side: fault.Mesh, Kind: fault.Injected, Status: in.Status, Details: faultDetails, Body: faultBody,
		Hint: "a VirtualService's fault.abort asks for this",
	}
}

// hit says whether a 32-bit random number falls into the share.
func hit(share route.Fraction, random uint64) bool {
	if share.Of == 0 || share.Per == 0 {
		return false
	}
	return uint32(random%uint64(share.Per)) < share.Of
}
