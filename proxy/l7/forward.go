// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/clock"
	"github.com/meltemi/meltemi/proxy/l7/upload"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// forward sends the request where its route leads, and relays the response. It
// cannot be called without a permit. The fault it returns is of the last attempt.
func (x *exchange) forward(permit filter.Permit) *fault.Fault {
	if !permit.Valid() {
		return unpermitted
	}
	if x.cluster == nil {
		return x.unknownCluster()
	}
	tunnel, raw, f := x.switching()
	if f != nil {
		return f
	}
	f = x.body.Collect(x.down, x.Request, x.Start, x.site.http.RequestTimeout, tunnel, x.bufferLimit())
	if f != nil {
		return f
	}
	x.rewrite()
	x.settleRetry()
	x.mirror()
	if f := x.cluster.Admit(); f != nil {
		return f
	}
	x.admitted = true
	if raw {
		return x.connectRaw()
	}
	x.prepareAttempts(tunnel)
	for {
		f := x.attempt()
		if f == nil && !x.retryResponse() {
			return x.relay()
		}
		if f != nil {
			if again, last := x.retryFault(f); !again {
				return last
			}
		}
		if f := x.backoff(); f != nil {
			return f
		}
	}
}

var unpermitted = &fault.Fault{Side: fault.Mesh, Kind: fault.Internal, Status: 403, Details: "no_permit",
	Hint: "nothing is forwarded that the filter chain has not admitted; this is a defect of the proxy"}

func (x *exchange) unknownCluster() *fault.Fault {
	return &fault.Fault{
		Side: fault.Mesh, Kind: fault.NoCluster, Status: x.decision.Route.Forward.NotFoundStatus, Details: "cluster_not_found",
		Object: "cluster " + x.Target.Cluster, Hint: "the route names a cluster that the control plane has not sent: is the service, or the subset, still there?",
	}
}

// switching says whether the exchange is to become a tunnel: as the upstream
// agrees to, or raw, by terminating CONNECT here.
func (x *exchange) switching() (tunnel, raw bool, f *fault.Fault) {
	r := x.Request
	kind := r.Protocol
	if r.Method == "CONNECT" && kind == "" {
		kind = "connect"
	}
	if kind == "" {
		return false, false, nil
	}
	u, ok := x.upgrade(kind)
	if !ok {
		return false, false, &fault.Fault{Side: fault.Client, Kind: fault.BadRequest, Status: 403, Details: "upgrade_failed",
			Hint: "neither route nor listener allow this upgrade"}
	}
	return true, u.Terminate && r.Method == "CONNECT", nil
}

// upgrade says whether an upgrade may be made: the route's word counts, then the
// listener's.
func (x *exchange) upgrade(kind string) (u route.Upgrade, ok bool) {
	if d := &x.decision; d.Route != nil && d.Route.Forward != nil {
		for _, u := range d.Route.Forward.Upgrades {
			if u.Type == kind {
				return u, u.Enabled
			}
		}
	}
	for _, u := range x.site.http.Upgrades {
		if u.Type == kind {
			return u, u.Enabled
		}
	}
	return u, false
}

func (x *exchange) bufferLimit() int64 {
	if l := x.decision.Route.BufferLimit; l > 0 {
		return l
	}
	return x.site.server.cfg.BufferLimit
}

// rewrite makes the request what the upstream gets, whichever attempt sends it.
func (x *exchange) rewrite() {
	r := x.Request
	if t := x.site.tracer; t != nil {
		t.Propagate(&x.Exchange, x.decision.Route.Decorator)
	}
	x.table.Rewrite(&x.decision, r, x)
	if ms := x.limits.Expected(); ms > 0 && !x.site.http.Router.SuppressHeaders {
		r.Header.Set(clock.ExpectedHeader, x.number(ms))
	}
	if r.Expect100 && !x.site.http.Proxy100 {
		x.Response.Reset()
		x.Response.Status = 100
		_ = x.down.WriteHead(&x.Response, false) // a client that is gone is noticed soon enough
		x.Response.Reset()
		r.Header.Delete("expect")
		r.Expect100 = false
	}
	r.Close = false // the upstream's connection is another one
}

// attempt sends the request to one endpoint and awaits the final head of a
// response. Without a fault x.lease holds the stream.
func (x *exchange) attempt() *fault.Fault {
	x.Attempts++
	begin := time.Now()
	if d := x.limits.Duration; d > 0 {
		x.pick.Deadline = x.Start.Add(d)
	}
	x.pick.Until = x.deadline(begin)
	host, f := x.cluster.Pick(&x.pick)
	if f != nil {
		return f
	}
	x.tell(host)
	lease, f := x.cluster.Open(host, &x.pick)
	if f != nil {
		f = x.unopened(f, begin)
		x.Upstream.Failure = failureText(f)
		x.endAttempt(f)
		return f
	}
	x.lease, x.outcome = lease, upstream.Outcome{} // at once, for abandon to find it
	x.Upstream.Local, x.Upstream.Version, x.Upstream.TLS, x.Upstream.Failure = lease.LocalAddr(), lease.Version(), lease.TLS(), ""
	x.reused, x.heard = lease.Reused(), time.Time{}
	x.Mark(filter.ConnectEnd)
	if f := x.setStream(lease.Stream); f != nil {
		x.giveUp(lease, f)
		return f
	}
	if f := x.exchangeHeads(lease, begin); f != nil {
		x.giveUp(lease, f)
		return f
	}
	return nil
}

// unopened tells what it means that an attempt got no stream, because of f. That
// the time of the whole exchange is over is told from that of this attempt, which
// another one may follow: nothing was sent.
func (x *exchange) unopened(f *fault.Fault, begin time.Time) *fault.Fault {
	if gone := x.Cancelled(); gone != nil {
		return gone
	}
	if f.Kind != fault.ConnectTimeout {
		return f
	}
	over := x.over(begin)
	if over == nil || over.Kind == fault.PerTryTimeout {
		return f
	}
	late := *over
	late.Sent, late.Object, late.Hint = false, f.Object, f.Hint
	return &late
}

// exchangeHeads sends the request and reads heads until the final one.
func (x *exchange) exchangeHeads(lease *upstream.Lease, begin time.Time) *fault.Fault {
	x.Mark(filter.UpstreamTxBegin)
	headed, sendErr := x.body.Send(lease.Stream, x.deadline(begin), !x.mayFollow(lease))
	if sendErr != nil && !headed {
		if f := x.over(begin); f != nil && isTimeout(sendErr) && x.Cancelled() == nil {
			return f
		}
		return x.streamFault(lease, sendErr)
	}
	// A server may answer, and close, before it has read all of the request: what
	// it says counts for more than that writing failed, or took too long.
	for {
		x.bound(lease.Stream, begin)
		err := lease.ReadHead(&x.Response)
		switch {
		case err == nil && x.Response.Status < 200 && x.Response.Status != 101:
			if f := x.relayInterim(); f != nil {
				return f
			}
		case err == nil:
			x.Mark(filter.UpstreamRxBegin)
			if x.limits.TryIdle > 0 {
				x.heard = time.Now()
			}
			return nil
		case isTimeout(err) && x.Cancelled() == nil:
			if f := x.over(begin); f != nil {
				return f
			}
		default:
			return x.streamFault(lease, err)
		}
	}
}

// relayInterim passes an informational response on.
func (x *exchange) relayInterim() *fault.Fault {
	x.moved()
	if x.down.WriteHead(&x.Response, false) == nil {
		return nil
	}
	if f := x.Cancelled(); f != nil {
		return f
	}
	return upload.ClientGone
}
