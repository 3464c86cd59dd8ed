// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/l7/grpcstatus"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

const attemptCount = "x-envoy-attempt-count"

// prepareAttempts fills in what balancing may know.
func (x *exchange) prepareAttempts(tunnel bool) {
	x.pick = upstream.Request{
		Version: x.Request.Version, OriginalDst: x.Conn.OriginalDst, Client: x.Conn.Remote,
		Random: x.Random, Upgrade: tunnel, Caller: x,
	}
	if x.cluster.Spec().AutoSNI {
		x.pick.SNI = route.WithoutPort(x.Request.Authority)
	}
	if h := x.decision.Hash(x.Request, x.Remote, x.Conn.Local); h.OK {
		x.pick.Hash, x.pick.HasHash, x.cookie = h.Value, true, h.Cookie
	}
	if x.retry.PreviousHosts {
		x.pick.MaxReselect = x.retry.MaxReselect
	}
	x.pick.AvoidEvery = int(x.retry.PreviousPriorities)
}

// tell notes where the attempt goes, and tells the endpoint what only this
// attempt knows.
func (x *exchange) tell(host *upstream.Host) {
	if n := len(x.pick.Tried); n < len(x.tried) {
		x.tried[n] = host
		x.pick.Tried = x.tried[:n+1]
	}
	e := host.Endpoint()
	x.Upstream.Endpoint, x.Upstream.Remote, x.Upstream.Mutual = e, host.Addr(), host.Transport().Mutual
	if t := x.site.tracer; t != nil {
		x.span = t.BeginAttempt(&x.Exchange)
	}
	d := &x.decision
	if rw := &d.Route.Forward.Rewrite; rw.HostAuto && e.Hostname != "" {
		route.SetAuthority(x.Request, e.Hostname, rw.ForwardedHost)
	}
	if d.Host.AttemptCount {
		x.Request.Header.Set(attemptCount, x.number(int64(x.Attempts)))
	}
}

// streamFault tells what an error of the attempt's stream means.
func (x *exchange) streamFault(lease *upstream.Lease, err error) *fault.Fault {
	if f := x.Cancelled(); f != nil {
		return f
	}
	return lease.Fault(err)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// tlsFailure begins the reason of a connection that failed in its handshake.
const tlsFailure = "TLS_error: "

// failureText is %UPSTREAM_TRANSPORT_FAILURE_REASON%: why a connection could not
// be made, in Envoy's words where it has some.
func failureText(f *fault.Fault) string {
	if f.Kind != fault.ConnectFailure || f.Err == nil {
		return ""
	}
	var errno syscall.Errno
	if errors.As(f.Err, &errno) {
		text := errno.Error()
		return "delayed connect error: " + strings.ToUpper(text[:1]) + text[1:]
	}
	return tlsFailure + f.Err.Error()
}

// outcomeStatus is what outlier detection is told: for gRPC, what the status in
// a response's head stands for.
func outcomeStatus(r *message.Response) (status int, grpc bool) {
	if s, ok := r.Header.Lookup("grpc-status"); ok && r.Status == 200 {
		return grpcstatus.HTTP(s), true
	}
	return r.Status, false
}

// giveUp ends an attempt that came to nothing.
func (x *exchange) giveUp(lease *upstream.Lease, f *fault.Fault) {
	x.endAttempt(f)
	_ = x.setStream(nil)
	lease.Abort(codeCancel)
	x.body.Detach()
	x.Response.Reset()
	x.lease = nil
	lease.Done(upstream.Outcome{Fault: f})
}

// discard ends an attempt whose response is not the one to relay. A short rest
// of it that has come already is read, so that the connection can be kept.
func (x *exchange) discard() {
	lease := x.lease
	o := upstream.Outcome{}
	o.Status, o.GRPC = outcomeStatus(&x.Response)
	x.endAttempt(nil)
	_ = x.setStream(nil)
	if x.body.Complete() {
		o.Reusable = readRest(lease.Stream)
	}
	if !o.Reusable {
		lease.Abort(codeCancel)
	}
	x.body.Detach()
	x.Response.Reset()
	x.lease = nil
	lease.Done(o)
}

// scratchSize is what is copied at once.
const scratchSize = 32 << 10

var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// buffered tells whether reading has to wait; both codecs' streams do.
type buffered interface{ Buffered() int }

var _ buffered = (interface {
	upstream.Stream
	Buffered() int
})(nil)

// readRest reads what has come of a body, and says whether that was all.
func readRest(s upstream.Stream) bool {
	b, ok := s.(buffered)
	if !ok {
		return false
	}
	scratch := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(scratch)
	for range 4 {
		if b.Buffered() == 0 {
			break
		}
		if _, err := s.Read(scratch[:]); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
	_, err := s.Read(scratch[:0])
	return errors.Is(err, io.EOF)
}

// endLease ends the attempt whose response was relayed. Nothing of the response
// may be looked at afterwards.
func (x *exchange) endLease() {
	lease := x.lease
	if lease == nil {
		return
	}
	x.endAttempt(x.outcome.Fault)
	_ = x.setStream(nil)
	if !x.body.Complete() {
		x.outcome.Reusable = false // the response came before the request was over
	}
	if !x.outcome.Reusable {
		lease.Abort(codeCancel)
	}
	x.body.Detach()
	x.lease = nil
	lease.Done(x.outcome)
}

// endAttempt tells of an attempt that is over; f is why it failed, or nil.
func (x *exchange) endAttempt(f *fault.Fault) {
	if x.span != nil {
		x.site.tracer.EndAttempt(&x.Exchange, x.span, f)
		x.span = nil
	}
	x.site.attempts.LogAs(&x.Exchange, &x.record, "UpstreamEnd")
}

// leaveRetry ends what the last attempt took of the retry budget.
func (x *exchange) leaveRetry() {
	if x.retrying {
		x.retrying = false
		x.cluster.LeaveRetry()
	}
}
