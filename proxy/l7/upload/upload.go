// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package upload moves a request's body upstream, to one attempt after another.
// A body that is there as a whole, and small, is sent by the exchange's own
// goroutine; any other by a pump, which reads the client and writes to the
// attempt of the moment:
//
//	client ─▶ buf, while it may still be wanted by another attempt ─▶ target
//	      └▶ scratch, once it may not
//
// In file order: upload.go what the exchange calls, pump.go the pump.
package upload

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/meltemi/meltemi/http1"
	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// A Source is where the body comes from: the client's stream.
type Source interface {
	Read(p []byte) (int, error)
	Trailer() *message.Header
	SetReadDeadline(t time.Time) error
}

// An Exchange is what a Body is a part of. Its methods are called from the pump, Moved and
// Arrived from Collect, too; Arrived from the pump with the Body's lock held.
type Exchange interface {
	// Cancel ends the exchange because of f.
	Cancel(f *fault.Fault)
	// Cancelled returns why the exchange was ended, or nil.
	Cancelled() *fault.Fault
	// Moved is given what has come of the body, in order.
	Moved(p []byte)
	// Arrived notes that the whole request had come at that time.
	Arrived(at time.Time)
	// Defect ends the exchange because the pump has met one, with this panic.
	Defect(panicked any)
}

// A Body is a request's body on its way.
type Body struct {
	x Exchange

	src     Source
	r       *message.Request
	start   time.Time
	within  time.Duration // bound on receiving all of it; 0: none
	state   State
	buf     []byte // what has come and is kept; the pump appends
	pooled  *[]byte
	limit   int
	trailer *message.Header
	done    chan struct{} // closed when the pump has returned

	mu       sync.Mutex
	cond     sync.Cond
	target   upstream.Stream // nil between attempts
	sent     int             // of buf, to target
	ended    bool            // target has got the end
	broken   bool            // target takes no more
	writing  bool            // the pump is inside one of target's methods
	keep     bool            // buf has all that came
	pinned   bool            // and goes on having it, for the attempt that follows
	eof      bool            // all has come
	at       time.Time       // when
	received uint64
	stopped  bool
}

// A State is what is known of a body.
type State uint8

// The states.
const (
	Unseen    State = iota // nobody has looked
	None                   // there is no body
	Small                  // all of it is here
	Pumped                 // more is to come
	Tunnelled              // what follows the head is no body
)

// smallBody is how much of a request is waited for before it is forwarded.
const smallBody = 16 << 10

// past is a deadline that makes a read return what is there already.
var past = time.Unix(1, 0)

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, smallBody); return &b }}

// Init prepares storage that is used for many bodies; x stays the same.
func (u *Body) Init(x Exchange) {
	u.x = x
	u.cond.L = &u.mu
}

// Reset forgets the body. The pump is not running any more.
func (u *Body) Reset() {
	u.dropBuf()
	u.src, u.r, u.start, u.within = nil, nil, time.Time{}, 0
	u.state, u.limit, u.trailer, u.done = Unseen, 0, nil, nil
	u.target, u.ended, u.broken, u.writing = nil, false, false, false
	u.keep, u.pinned, u.eof, u.at, u.received, u.stopped = false, false, false, time.Time{}, 0, false
}

// dropBuf gives back what buf and pooled hold. Nobody reads it any more.
func (u *Body) dropBuf() {
	if u.pooled != nil && cap(u.buf) <= 4*smallBody {
		*u.pooled = u.buf[:0]
		bodies.Put(u.pooled)
	}
	u.buf, u.pooled, u.sent = nil, nil, 0
}

// Collect looks at what there is of the body of r, which came from src, since
// start, and is to come within a time (0: any). It waits for a small body, and
// for no other. limit bounds what is kept for another attempt, in bytes.
func (u *Body) Collect(src Source, r *message.Request, start time.Time, within time.Duration, tunnel bool, limit int64) *fault.Fault {
	u.src, u.r, u.start, u.within = src, r, start, within
	u.limit = int(min(limit, 1<<30))
	switch {
	case tunnel:
		u.state = Tunnelled
		u.arrived(start)
		return nil
	case r.ContentLength == 0:
		u.state = None
		u.arrived(start)
		return nil
	}
	u.pooled = bodies.Get().(*[]byte)
	u.buf = (*u.pooled)[:0]
	u.keep = true
	u.state = Pumped
	if r.Expect100 {
		return nil // it waits to be asked
	}
	eager := r.ContentLength > 0 && r.ContentLength <= smallBody
	if !eager {
		_ = src.SetReadDeadline(past) // take only what has come: the rest may be long in coming
	} else if within > 0 {
		_ = src.SetReadDeadline(start.Add(within))
	}
	err := u.gather()
	if !eager || within > 0 {
		_ = src.SetReadDeadline(time.Time{})
	}
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded) && !eager:
		return nil
	case err == io.EOF:
		u.finishReading()
		u.state = Small
		return nil
	}
	return u.clientFault(err)
}

// gather reads until the end, an error, or smallBody bytes.
func (u *Body) gather() error {
	for {
		if len(u.buf) == cap(u.buf) {
			return nil
		}
		n, err := u.src.Read(u.buf[len(u.buf):cap(u.buf)])
		u.x.Moved(u.buf[len(u.buf):][:n])
		u.buf = u.buf[:len(u.buf)+n]
		u.received += uint64(n)
		if err != nil {
			return err
		}
	}
}

// finishReading notes the end of the body. u.mu is held, or nobody else is there.
func (u *Body) finishReading() {
	u.arrived(time.Now())
	if t := u.src.Trailer(); t != nil && t.Len() > 0 {
		u.trailer = t
	}
}

func (u *Body) arrived(at time.Time) {
	u.eof, u.at = true, at
	u.x.Arrived(at)
}

// State returns what is known of the body.
func (u *Body) State() State { return u.state }

// Whole returns a small body, and its trailers.
func (u *Body) Whole() ([]byte, *message.Header) { return u.buf, u.trailer }

// Received returns how many bytes of the body have come; after Stop, or without a pump.
func (u *Body) Received() uint64 { return u.received }

// End returns when the whole body had come; the zero time if it has not.
func (u *Body) End() time.Time {
	if u.state != Pumped {
		return u.at
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.at
}

// Replayable says whether another attempt can be sent all that this one was. If
// so, it stays true until the next Send, or Unpin: what does not fit is not read.
func (u *Body) Replayable() bool {
	if u.state != Pumped {
		return u.state != Tunnelled
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pinned = u.keep
	return u.keep
}

// Unpin is for when Replayable was asked, and no other attempt follows.
func (u *Body) Unpin() {
	if u.state != Pumped {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pinned = false
	u.cond.Broadcast()
}

// Send writes the request, head and what there is of its body, to a new attempt.
// If it fails before the head was written, nothing can be read from s either.
// until bounds the writing, but not that of what is still to come; the zero time is no bound.
// last: no other attempt will be asked for, so what comes from now on is not kept.
func (u *Body) Send(s upstream.Stream, until time.Time, last bool) (headed bool, err error) {
	if !until.IsZero() {
		_ = s.SetWriteDeadline(until)
	}
	if err := s.WriteHead(u.r, u.state == None); err != nil {
		return false, err
	}
	switch u.state {
	case None:
		return true, nil
	case Tunnelled:
		unbound(s, until)
		return true, nil
	case Small:
		if _, err := s.Write(u.buf); err != nil {
			return true, err
		}
		return true, s.Finish(u.trailer)
	}
	u.mu.Lock()
	have := u.buf
	u.mu.Unlock()
	if len(have) > 0 {
		if _, err = s.Write(have); err != nil {
			return true, err
		}
	}
	if err := s.Flush(); err != nil {
		return true, err
	}
	unbound(s, until)
	u.attach(s, len(have), last)
	return true, nil
}

// unbound lifts the bound of Send.
func unbound(s upstream.Stream, until time.Time) {
	if !until.IsZero() {
		_ = s.SetWriteDeadline(time.Time{})
	}
}

// attach has the pump send what comes to s, which has got sent bytes of buf.
func (u *Body) attach(s upstream.Stream, sent int, last bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last {
		u.limit = 0
	}
	u.target, u.sent, u.ended, u.broken, u.pinned = s, sent, false, false, false
	if u.done == nil {
		u.done = make(chan struct{})
		if u.within > 0 {
			_ = u.src.SetReadDeadline(u.start.Add(u.within))
		}
		go u.run()
	}
	u.cond.Broadcast()
}

// Detach takes the attempt's stream away from the pump. The stream must have
// been aborted, or be at its end: a write would not return otherwise.
func (u *Body) Detach() {
	if u.state != Pumped {
		return
	}
	u.mu.Lock()
	u.target = nil
	for u.writing {
		u.cond.Wait()
	}
	u.mu.Unlock()
}

// Complete says whether the attempt of the moment was sent all of the request.
func (u *Body) Complete() bool {
	if u.state != Pumped {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ended && !u.writing
}

// Stop ends the pump, and says whether the client may still be sending.
func (u *Body) Stop() (unread bool) {
	if u.state != Pumped {
		return false
	}
	if u.done != nil {
		u.mu.Lock()
		u.stopped, u.target = true, nil
		u.cond.Broadcast()
		u.mu.Unlock()
		_ = u.src.SetReadDeadline(past)
		<-u.done
		_ = u.src.SetReadDeadline(time.Time{})
	}
	return !u.eof
}

// ClientGone is why an exchange ends whose client has hung up. Shared, not to be
// changed.
var ClientGone = &fault.Fault{Side: fault.Client, Kind: fault.ClientGone, Details: "downstream_remote_disconnect", Hint: "the client closed its connection"}

// clientFault tells what an error of reading the client means.
func (u *Body) clientFault(err error) *fault.Fault {
	if f := u.x.Cancelled(); f != nil {
		return f
	}
	var bad *http1.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &fault.Fault{Side: fault.Client, Kind: fault.MaxDuration, Status: 408, Details: "request_overall_timeout",
			Body: "request timeout", Hint: "the request did not arrive within request_timeout"}
	case errors.As(err, &bad) && bad.Kind != http1.Truncated:
		return &fault.Fault{Side: fault.Client, Kind: fault.BadRequest, Status: bad.Status, Details: "http1.codec_error", Err: err,
			Hint: "the request's body is not framed as HTTP/1.1 has it"}
	}
	return ClientGone
}
