// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upload

import (
	"io"
	"sync"

	"github.com/meltemi/meltemi/proxy/upstream"
)

// scratchSize is what is copied at once.
const scratchSize = 32 << 10

var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// run is the pump's goroutine. A panic in it is the end of its exchange, not of
// all that the process serves.
func (u *Body) run() {
	defer close(u.done)
	defer func() {
		if p := recover(); p != nil {
			u.pooled = nil // somebody may hold it
			u.x.Defect(p)
		}
	}()
	u.pump()
}

// pump moves the body until Stop. What it calls leaves the lock held, by a panic, too.
func (u *Body) pump() {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.haltLocked()
	scratch := scratches.Get().(*[scratchSize]byte)
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
	scratches.Put(scratch) // nor this after a panic
}

// haltLocked notes that the pump moves nothing any more.
func (u *Body) haltLocked() {
	u.stopped, u.broken, u.writing = true, true, false
	u.cond.Broadcast()
}

// mayReadLocked says whether there is room for more of the body.
func (u *Body) mayReadLocked() bool {
	switch {
	case u.eof:
		return false
	case u.keep && len(u.buf) < u.limit:
		return true
	case u.pinned:
		return false
	}
	// From here on what comes is not kept, so it needs somewhere to go.
	return u.target != nil && !u.broken
}

// doLocked does f to the target, which nobody takes away meanwhile, and says
// whether that went well and it is the target still. That it failed the exchange
// learns from reading.
func (u *Body) doLocked(f func(t upstream.Stream) error) bool {
	t := u.target
	u.writing = true
	err := u.unlocked(func() error { return f(t) })
	u.writing = false
	if err != nil && u.target == t {
		u.broken = true
	}
	u.cond.Broadcast()
	return err == nil && u.target == t
}

// unlocked calls f without the lock.
func (u *Body) unlocked(f func() error) error {
	u.mu.Unlock()
	defer u.mu.Lock()
	return f()
}

// pushLocked writes p, which is the unsent part of buf, to the target.
func (u *Body) pushLocked(p []byte) {
	if u.doLocked(func(t upstream.Stream) error { _, err := t.Write(p); return err }) {
		u.sent += len(p)
	}
}

func (u *Body) endLocked() {
	if u.doLocked(func(t upstream.Stream) error { return t.Finish(u.trailer) }) {
		u.ended = true
	}
}

// pullLocked reads more of the body: into buf as long as it is kept, else
// through scratch to the target.
func (u *Body) pullLocked(scratch []byte) {
	if u.keep && len(u.buf) >= u.limit {
		u.keep = false // too much for another attempt; all of buf was sent
		u.dropBuf()
	}
	to := scratch
	if u.keep {
		u.growLocked()
		to = u.buf[len(u.buf):min(cap(u.buf), max(u.limit, len(u.buf)+1))]
	}
	u.doLocked(flush)
	n := 0
	err := u.unlocked(func() (err error) {
		n, err = u.src.Read(to)
		u.x.Moved(to[:n])
		return err
	})
	u.received += uint64(n)
	switch {
	case n > 0 && u.keep:
		u.buf = u.buf[:len(u.buf)+n]
	case n > 0 && u.target != nil && !u.broken:
		u.doLocked(func(t upstream.Stream) error { _, err := t.Write(to[:n]); return err })
	}
	switch {
	case err == io.EOF:
		u.finishReading()
	case err != nil && !u.stopped:
		u.stopped = true
		f := u.clientFault(err)
		_ = u.unlocked(func() error { u.x.Cancel(f); return nil })
	}
}

// flush sends what t has gathered, if there is a t. What fails is met again.
func flush(t upstream.Stream) error {
	if t != nil {
		_ = t.Flush()
	}
	return nil
}

// growLocked makes room in buf. What it replaces may still be read by Send.
func (u *Body) growLocked() {
	if len(u.buf) < cap(u.buf) {
		return
	}
	next := make([]byte, len(u.buf), min(max(4*cap(u.buf), smallBody), max(u.limit, len(u.buf)+1)))
	copy(next, u.buf)
	u.buf = next
}
