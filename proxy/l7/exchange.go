// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/clock"
	"github.com/meltemi/meltemi/proxy/l7/grpcframe"
	"github.com/meltemi/meltemi/proxy/l7/upload"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry/accesslog"
	"github.com/meltemi/meltemi/telemetry/trace"
)

// An exchange is one request and its answer, under way.
type exchange struct {
	filter.Exchange
	way // what is known only of this exchange

	in      message.Request // storage of an HTTP/1 request's head
	body    upload.Body
	tried   [maxTried]*upstream.Host
	id      trace.RequestID
	record  accesslog.Record
	scratch [scratchBytes]byte // backs the strings that text returns

	asked, answered grpcframe.Counter     // messages, if they are counted
	meters          []filter.MessageMeter // where; others read it once metered is true
	metered         atomic.Bool

	progress   atomic.Uint32 // moves whenever bytes do
	idleLimit  atomic.Int64  // stream idle timeout; 0: none
	lastsUntil atomic.Int64  // when the clocks Duration
	totalUntil atomic.Int64  // and Total run out, since Start; 0: they do not run
	isTunnel   atomic.Bool   // the client may end its side and go on reading
	head       atomic.Uint32 // of an HTTP/1 request: headDone, headComing or headLate
	nextOfConn *exchange     // guarded by connection.mu, as what the sweeper saw is
	prevOfConn *exchange
	seen       uint32
	seenAt     time.Time

	mu         sync.Mutex
	generation uint64 // one more for each exchange this storage serves
	gone       *fault.Fault
	stream     upstream.Stream // what cancel aborts
	wake       chan struct{}   // closed by cancel; nil until somebody waits
}

// A way is how an exchange goes.
type way struct {
	seat *seat
	site *site
	conn *connection
	down Downstream

	// What was decided.
	table    *config.RouteTable // nil while there is none
	decision route.Decision
	facts    route.Facts
	cluster  *upstream.Cluster // nil: unknown
	reason   trace.Reason

	// What is done about it.
	limits   clock.Limits
	retry    *route.Retry // the route's policy, with what an internal caller asks for
	heard    time.Time    // of the endpoint last; kept only if a clock asks
	pick     upstream.Request
	lease    *upstream.Lease // of the attempt under way, or of the response that is relayed: then held until finish
	outcome  upstream.Outcome
	span     *trace.Span // of the attempt; nil: none
	cookie   string      // to set, from the hash policy
	retries  uint32      // attempts after the first that policy allowed
	admitted bool        // by the cluster's circuit breaker
	retrying bool        // and by its retry budget
	reused   bool        // the attempt's connection had served before
	resends  uint32      // because that connection was stale
	urx      bool        // no more attempts were allowed

	closing   bool // the connection ends with this exchange
	answering bool // the response's body is messages
	headSent  bool // the final head went to the client
	tunnelled bool
	abandoned bool // after a defect: others may hold the storage still
	unread    bool // the client may still be sending its request
	used      int  // of scratch
}

const (
	maxTried     = 8
	scratchBytes = 160
)

var exchanges = sync.Pool{New: func() any {
	x := new(exchange)
	x.body.Init(x)
	return x
}}

// take returns storage for an exchange.
func take() *exchange { return exchanges.Get().(*exchange) }

// release gives the storage back.
func (x *exchange) release() {
	x.mu.Lock()
	x.generation++
	x.gone, x.stream, x.wake = nil, nil, nil
	x.mu.Unlock()
	x.in.Reset()
	x.body.Reset()
	x.way = way{}
	clear(x.tried[:])
	x.record = accesslog.Record{}
	x.idleLimit.Store(0)
	put(&x.lastsUntil, 0)
	put(&x.totalUntil, 0)
	x.isTunnel.Store(false)
	x.asked.Reset()
	x.answered.Reset()
	clear(x.meters)
	x.metered.Store(false)
	x.Exchange.Reset()
	exchanges.Put(x)
}

// Cancel ends x from outside, because of f: the upstream's stream is aborted,
// who holds is woken. What the exchange meets then it takes for f.
func (x *exchange) Cancel(f *fault.Fault) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cancelLocked(f)
}

// cancelIf is Cancel, unless the storage serves another exchange by now.
func (x *exchange) cancelIf(generation uint64, f *fault.Fault) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.generation == generation {
		x.cancelLocked(f)
	}
}

// codeCancel is RFC 9113's CANCEL, codeInternal its INTERNAL_ERROR.
const (
	codeNo       = 0
	codeInternal = 2
	codeCancel   = 8
)

func (x *exchange) cancelLocked(f *fault.Fault) {
	if x.gone != nil {
		return
	}
	x.gone = f
	if x.stream != nil {
		x.stream.Abort(codeCancel)
	}
	if x.wake != nil {
		close(x.wake)
	}
	// Who waits for the client does not wait any longer.
	_ = x.down.SetReadDeadline(past)
	_ = x.down.SetWriteDeadline(past)
}

// Cancelled returns why x was ended from outside, or nil.
func (x *exchange) Cancelled() *fault.Fault {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.gone
}

// setStream names what cancel aborts; nil before the stream serves another
// exchange. It returns why x was cancelled in the meantime.
func (x *exchange) setStream(s upstream.Stream) *fault.Fault {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stream = s
	return x.gone
}

// Hold waits; see filter.Holder.
func (x *exchange) Hold(d time.Duration) *fault.Fault {
	if d <= 0 {
		return x.Cancelled()
	}
	clocks := x.limits.Whole()
	if at := clocks.Deadline(x.moments(time.Time{})); !at.IsZero() {
		d = min(d, time.Until(at))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-x.Done():
	}
	if f := x.Cancelled(); f != nil {
		return f
	}
	return clocks.Over(time.Now(), x.moments(time.Time{}))
}

// Done returns a channel that is closed when x is cancelled; see upstream.Caller.
func (x *exchange) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wake == nil {
		x.wake = make(chan struct{})
		if x.gone != nil {
			close(x.wake)
		}
	}
	return x.wake
}

// moved notes that bytes have moved.
func (x *exchange) moved() { x.progress.Add(1) }

// Arrived notes that the whole request has come, from which on Total counts.
func (x *exchange) Arrived(at time.Time) {
	if d := x.limits.Total; d > 0 {
		x.totalUntil.Store(int64(at.Sub(x.Start) + d))
	}
}

// Defect ends x because the goroutine that sends its request upstream panicked.
func (x *exchange) Defect(panicked any) {
	x.conn.reportDefect(panicked)
	x.Cancel(defect)
}

// defect is why an exchange ends for which somebody else has panicked.
var defect = &fault.Fault{Side: fault.Mesh, Kind: fault.Internal, Details: "internal_error", Hint: "this is a defect of the proxy; its log has the stack"}

// put is a Store that costs nothing where it changes nothing.
func put(a *atomic.Int64, d time.Duration) {
	if a.Load() != int64(d) {
		a.Store(int64(d))
	}
}

var (
	_ filter.Holder   = (*exchange)(nil)
	_ upload.Exchange = (*exchange)(nil)
	_ upstream.Caller = (*exchange)(nil)
	_ route.Expander  = (*exchange)(nil)
)

// past is a deadline that makes whoever waits return.
var past = time.Unix(1, 0)

// moments are when the clocks of x were started; attempt is zero once there is a
// response.
func (x *exchange) moments(attempt time.Time) clock.Moments {
	return clock.Moments{Begin: x.Start, End: x.body.End(), Attempt: attempt, Heard: x.heard}
}

// deadline is when the first of the clocks that run will have run out; the zero
// time for never.
func (x *exchange) deadline(attempt time.Time) time.Time {
	if !x.limits.Any() {
		return time.Time{}
	}
	return x.limits.Deadline(x.moments(attempt))
}

// bound sets the deadline for reading s to when a clock may have run out.
func (x *exchange) bound(s upstream.Stream, attempt time.Time) {
	if x.limits.Any() {
		_ = s.SetReadDeadline(x.limits.Look(time.Now(), x.moments(attempt)))
	}
}

// over returns the fault of a clock that has run out, or nil.
func (x *exchange) over(attempt time.Time) *fault.Fault {
	if !x.limits.Any() {
		return nil
	}
	return x.limits.Over(time.Now(), x.moments(attempt))
}

// text returns a string of b that lives as long as the exchange. Small ones cost
// no allocation.
func (x *exchange) text(b []byte) string {
	if len(b) == 0 || x.used+len(b) > len(x.scratch) {
		return string(b)
	}
	to := x.scratch[x.used : x.used+len(b)]
	copy(to, b)
	x.used += len(b)
	return unsafe.String(&to[0], len(to))
}

func (x *exchange) number(n int64) string {
	if n >= 0 && n < 100 {
		return strconv.FormatInt(n, 10) // needs no allocation
	}
	var b [20]byte
	return x.text(strconv.AppendInt(b[:0], n, 10))
}

// Expand writes what a format of the route table stands for; see route.Expander.
func (x *exchange) Expand(dst []byte, slot int) []byte {
	if slot >= len(x.table.Formats) {
		return dst
	}
	x.Record(&x.record)
	return x.table.Formats[slot].Append(dst, &x.record)
}

// fieldBytes is how long the fields are on the wire, as HTTP/1 has them.
func fieldBytes(h *message.Header) int {
	n := 0
	for i := range h.Len() {
		f := h.At(i)
		n += len(f.Name) + len(f.Value) + len(": \r\n")
	}
	return n
}
