// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

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

// An upload is a request's body on its way. One that is there as a whole, and
// small, is sent by the exchange's own goroutine; any other by a pump, which
// reads the client and writes to the attempt of the moment:
//
//	client ─▶ buf, while it may still be wanted by another attempt ─▶ target
//	      └▶ scratch, once it may not
type upload struct {
	x *exchange

	state   bodyState
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
	writing  bool            // the pump is inside target.Write or Finish
	keep     bool            // buf has all that came
	eof      bool            // all has come
	at       time.Duration   // when, after exchange.Start
	received uint64
	stopped  bool
}

type bodyState uint8

const (
	bodyNone     bodyState = iota
	bodyWhole              // buf holds all of it
	bodyPumped             // more is to come
	bodyTunneled           // what follows the head is no body
)

// smallBody is how much of a request is waited for before it is forwarded.
const smallBody = 16 << 10

// past is a deadline that makes a read return what is there already.
var past = time.Unix(1, 0)

var bodies = sync.Pool{New: func() any { b := make([]byte, 0, smallBody); return &b }}

var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// scratchSize is what is copied at once.
const scratchSize = 32 << 10

func (u *upload) init(x *exchange) {
	u.x = x
	u.cond.L = &u.mu
}

func (u *upload) reset() {
	if u.pooled != nil {
		if cap(u.buf) <= 4*smallBody {
			*u.pooled = u.buf[:0]
			bodies.Put(u.pooled)
		}
		u.pooled = nil
	}
	u.state, u.buf, u.limit, u.trailer, u.done = bodyNone, nil, 0, nil, nil
	u.target, u.sent, u.ended, u.broken, u.writing = nil, 0, false, false, false
	u.keep, u.eof, u.at, u.received, u.stopped = false, false, 0, 0, false
}

// collect looks at what there is of the body. It waits for a small one, and for
// no other.
func (u *upload) collect(tunnel bool, limit int64) *fault.Fault {
	r := u.x.Request
	u.limit = int(min(limit, 1<<30))
	switch {
	case tunnel:
		u.state, u.at, u.eof = bodyTunneled, 1, true
		return nil
	case r.ContentLength == 0:
		u.at, u.eof = 1, true
		return nil
	}
	u.pooled = bodies.Get().(*[]byte)
	u.buf = (*u.pooled)[:0]
	u.keep = true
	u.state = bodyPumped
	if r.Expect100 {
		return nil // it waits to be asked
	}
	down := u.x.down
	if r.ContentLength < 0 || r.ContentLength > smallBody {
		// Take only what has come: the rest may be long in coming.
		_ = down.SetReadDeadline(past)
	} else if t := u.x.site.http.RequestTimeout; t > 0 {
		_ = down.SetReadDeadline(u.x.Start.Add(t))
	}
	err := u.gather(down)
	_ = down.SetReadDeadline(time.Time{})
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded) && (r.ContentLength < 0 || r.ContentLength > smallBody):
		return nil
	case err == io.EOF:
		u.finishReading(time.Since(u.x.Start))
		u.state = bodyWhole
		return nil
	}
	return u.clientFault(err)
}

// gather reads until the end, an error, or smallBody bytes.
func (u *upload) gather(down Downstream) error {
	for {
		if len(u.buf) == cap(u.buf) {
			return nil
		}
		n, err := down.Read(u.buf[len(u.buf):cap(u.buf)])
		u.buf = u.buf[:len(u.buf)+n]
		u.received += uint64(n)
		if err != nil {
			return err
		}
	}
}

// finishReading notes the end of the body. u.mu is held, or nobody else is there.
func (u *upload) finishReading(at time.Duration) {
	u.eof, u.at = true, max(at, 1)
	if t := u.x.down.Trailer(); t != nil && t.Len() > 0 {
		u.trailer = t
	}
}

// endedAt returns when the whole body had come; false if it has not.
func (u *upload) endedAt() (time.Duration, bool) {
	if u.state != bodyPumped {
		return u.at, u.eof
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.at, u.eof
}

// replayable says whether another attempt can be sent all that this one was.
func (u *upload) replayable() bool {
	if u.state != bodyPumped {
		return u.state != bodyTunneled
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.keep
}

// send writes the request, head and what there is of its body, to a new
// attempt. The first error is returned; after WriteHead's nothing can be read.
func (u *upload) send(s upstream.Stream) (headed bool, err error) {
	r := u.x.Request
	if err := s.WriteHead(r, u.state == bodyNone); err != nil {
		return false, err
	}
	switch u.state {
	case bodyNone, bodyTunneled:
		return true, nil
	case bodyWhole:
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
	u.mu.Lock()
	u.target, u.sent, u.ended, u.broken = s, len(have), false, false
	if u.done == nil {
		u.done = make(chan struct{})
		if t := u.x.site.http.RequestTimeout; t > 0 {
			_ = u.x.down.SetReadDeadline(u.x.Start.Add(t))
		}
		go u.pump()
	}
	u.cond.Broadcast()
	u.mu.Unlock()
	return true, nil
}

// detach takes the attempt's stream away from the pump. The stream must have
// been aborted, or be at its end: a write would not return otherwise.
func (u *upload) detach() {
	if u.state != bodyPumped {
		return
	}
	u.mu.Lock()
	u.target = nil
	for u.writing {
		u.cond.Wait()
	}
	u.mu.Unlock()
}

// complete says whether the attempt of the moment was sent all of the request.
func (u *upload) complete() bool {
	if u.state != bodyPumped {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ended && !u.writing
}

// stop ends the pump, and says whether the client may still be sending.
func (u *upload) stop() (unread bool) {
	if u.state != bodyPumped {
		return false
	}
	if u.done != nil {
		u.mu.Lock()
		u.stopped, u.target = true, nil
		u.cond.Broadcast()
		u.mu.Unlock()
		_ = u.x.down.SetReadDeadline(past)
		<-u.done
		_ = u.x.down.SetReadDeadline(time.Time{})
	}
	return !u.eof
}

// pump moves the body until stop.
func (u *upload) pump() {
	scratch := scratches.Get().(*[scratchSize]byte)
	u.mu.Lock()
	for !u.stopped {
		switch {
		case u.target != nil && !u.broken && u.sent < len(u.buf):
			u.pushLocked(u.buf[u.sent:])
		case u.target != nil && !u.broken && u.eof && !u.ended:
			u.endLocked()
		case u.mayReadLocked():
			u.pullLocked(scratch[:])
		default:
			u.cond.Wait()
		}
	}
	u.mu.Unlock()
	scratches.Put(scratch)
	close(u.done)
}

// mayReadLocked says whether there is room for more of the body.
func (u *upload) mayReadLocked() bool {
	switch {
	case u.eof:
		return false
	case u.keep && len(u.buf) < u.limit:
		return true
	}
	// From here on what comes is not kept, so it needs somewhere to go.
	return u.target != nil && !u.broken
}

// pushLocked writes p, which is the unsent part of buf, to the target.
func (u *upload) pushLocked(p []byte) {
	t := u.target
	u.writing = true
	u.mu.Unlock()
	_, err := t.Write(p)
	u.mu.Lock()
	u.writtenLocked(t, err)
	if err == nil && u.target == t {
		u.sent += len(p)
	}
}

func (u *upload) endLocked() {
	t := u.target
	u.writing = true
	u.mu.Unlock()
	err := t.Finish(u.trailer)
	u.mu.Lock()
	u.writtenLocked(t, err)
	if err == nil && u.target == t {
		u.ended = true
	}
}

// writtenLocked ends a write. That it failed the exchange learns from reading.
func (u *upload) writtenLocked(t upstream.Stream, err error) {
	u.writing = false
	if err != nil && u.target == t {
		u.broken = true
	}
	u.cond.Broadcast()
}

// pullLocked reads more of the body: into buf as long as it is kept, else
// through scratch to the target.
func (u *upload) pullLocked(scratch []byte) {
	if u.keep && len(u.buf) >= u.limit {
		u.keep = false // too much for another attempt; all of buf was sent
		u.buf, u.sent = u.buf[:0], 0
	}
	to := scratch
	if u.keep {
		u.growLocked()
		to = u.buf[len(u.buf):min(cap(u.buf), max(u.limit, len(u.buf)+1))]
	}
	t := u.target
	u.writing = true // nobody may take the stream from under the flush
	u.mu.Unlock()
	if t != nil {
		_ = t.Flush()
	}
	u.mu.Lock()
	u.writtenLocked(t, nil)
	u.mu.Unlock()
	n, err := u.x.down.Read(to)
	u.x.progress.Add(1)
	u.mu.Lock()
	u.received += uint64(n)
	switch {
	case n > 0 && u.keep:
		u.buf = u.buf[:len(u.buf)+n]
	case n > 0 && u.target != nil && !u.broken:
		u.writeThroughLocked(to[:n])
	}
	switch {
	case err == io.EOF:
		u.finishReading(time.Since(u.x.Start))
	case err != nil && !u.stopped:
		u.stopped = true
		f := u.clientFault(err)
		u.mu.Unlock()
		u.x.cancel(f)
		u.mu.Lock()
	}
}

func (u *upload) writeThroughLocked(p []byte) {
	t := u.target
	u.writing = true
	u.mu.Unlock()
	_, err := t.Write(p)
	u.mu.Lock()
	u.writtenLocked(t, err)
}

// growLocked makes room in buf. What it replaces may still be read by send.
func (u *upload) growLocked() {
	if len(u.buf) < cap(u.buf) {
		return
	}
	next := make([]byte, len(u.buf), min(max(4*cap(u.buf), smallBody), max(u.limit, len(u.buf)+1)))
	copy(next, u.buf)
	u.buf = next
}

// clientFault tells what an error of reading the client means.
func (u *upload) clientFault(err error) *fault.Fault {
	if f := u.x.cancelled(); f != nil {
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
	return clientGone
}
