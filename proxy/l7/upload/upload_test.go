// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upload

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// source is a client whose test sends pieces and ends.
type source struct {
	mu   sync.Mutex
	cond sync.Cond
	data []byte
	end  error // after data
	past bool  // the deadline is over
}

func newSource() *source {
	s := &source{}
	s.cond.L = &s.mu
	return s
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case len(s.data) > 0:
			n := copy(p, s.data)
			s.data = s.data[n:]
			return n, nil
		case s.end == errPanic:
			panic(s.end)
		case s.end != nil:
			return 0, s.end
		case s.past:
			return 0, os.ErrDeadlineExceeded
		}
		s.cond.Wait()
	}
}

func (s *source) Trailer() *message.Header { return nil }

func (s *source) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past = !t.IsZero() && t.Before(time.Now())
	s.cond.Broadcast()
	return nil
}

func (s *source) put(p []byte, end error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.end = append(s.data, p...), end
	s.cond.Broadcast()
}

// target is an attempt; gate, if not nil, is what each write waits for.
type target struct {
	upstream.Stream
	mu    sync.Mutex
	got   bytes.Buffer
	ended bool
	fail  error
	gate  chan struct{}
}

func (t *target) WriteHead(*message.Request, bool) error { return nil }
func (t *target) Flush() error                           { return nil }
func (t *target) Write(p []byte) (int, error) {
	if t.fail == errPanic {
		panic(t.fail)
	}
	if t.gate != nil {
		<-t.gate
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fail != nil {
		return 0, t.fail
	}
	return t.got.Write(p)
}
func (t *target) Finish(*message.Header) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	return t.fail
}
func (t *target) holds(n int, ended bool) func() bool {
	return func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.got.Len() == n && t.ended == ended
	}
}

// exchange notes why it was cancelled.
type exchange struct {
	mu     sync.Mutex
	gone   *fault.Fault
	passed bytes.Buffer
}

func (x *exchange) Cancel(f *fault.Fault) { x.mu.Lock(); x.gone = f; x.mu.Unlock() }
func (x *exchange) Cancelled() *fault.Fault {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.gone
}
func (x *exchange) Moved(p []byte)    { x.mu.Lock(); x.passed.Write(p); x.mu.Unlock() }
func (x *exchange) Arrived(time.Time) {}
func (x *exchange) Defect(any)        { x.Cancel(defect) }

var defect = &fault.Fault{Kind: fault.Internal}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-time.After(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal("not in time: ", what)
}

func pumped(t *testing.T, limit int64) (*Body, *source, *exchange) {
	t.Helper()
	x, src, u := &exchange{}, newSource(), new(Body)
	u.Init(x)
	r := &message.Request{Method: "POST", ContentLength: message.LengthUnknown}
	if f := u.Collect(src, r, time.Now(), 0, false, limit); f != nil {
		t.Fatal(f)
	}
	if u.State() != Pumped {
		t.Fatalf("state %d", u.State())
	}
	t.Cleanup(func() { u.Stop(); u.Reset() })
	return u, src, x
}

func send(t *testing.T, u *Body, to *target) {
	t.Helper()
	if _, err := u.Send(to, time.Time{}, false); err != nil {
		t.Fatal(err)
	}
}

func TestSmallBodyNeedsNoPump(t *testing.T) {
	for _, length := range []int64{5, message.LengthUnknown} {
		u, src, x := new(Body), newSource(), &exchange{}
		u.Init(x)
		src.put([]byte("hello"), io.EOF)
		if f := u.Collect(src, &message.Request{ContentLength: length}, time.Now(), 0, false, 1<<20); f != nil {
			t.Fatal(f)
		}
		if u.State() != Small || !u.Replayable() || u.End().IsZero() {
			t.Errorf("state %d", u.State())
		}
		for range 2 {
			to := &target{}
			send(t, u, to)
			if !to.holds(5, true)() {
				t.Errorf("sent %q", to.got.String())
			}
		}
		if u.done != nil {
			t.Error("a pump was started")
		}
		if got := x.passed.String(); got != "hello" {
			t.Errorf("told that %q passes", got)
		}
		u.Reset()
	}
}

func TestReplay(t *testing.T) {
	u, src, x := pumped(t, 1<<20)
	first, second := &target{}, &target{}
	send(t, u, first)
	src.put([]byte("one "), nil)
	eventually(t, "the first attempt gets it", first.holds(4, false))
	u.Detach()
	src.put([]byte("two "), nil) // while there is no attempt
	send(t, u, second)
	src.put([]byte("three"), io.EOF)
	eventually(t, "the second gets all", second.holds(13, true))
	if second.got.String() != "one two three" || u.End().IsZero() {
		t.Errorf("sent %q", second.got.String())
	}
	eventually(t, "it is complete", u.Complete)
	if u.Stop() {
		t.Error("the client is taken to be still sending")
	}
	if got := x.passed.String(); got != "one two three" {
		t.Errorf("told that %q passes: once, whoever it is sent to", got)
	}
}

func TestOverflowIsSentButNotKept(t *testing.T) {
	u, src, _ := pumped(t, 10_000)
	to := &target{}
	send(t, u, to)
	piece := bytes.Repeat([]byte("x"), 4_000)
	for range 10 {
		src.put(piece, nil)
	}
	eventually(t, "all is sent", to.holds(40_000, false))
	if u.Replayable() {
		t.Error("replayable beyond its limit")
	}
	u.mu.Lock()
	if u.buf != nil || u.pooled != nil {
		t.Errorf("holds %d bytes that no attempt can use", cap(u.buf))
	}
	u.mu.Unlock()
	src.put(nil, io.EOF)
	eventually(t, "the end is sent", to.holds(40_000, true))
}

// What comes while the last attempt is under way is sent, and not kept; what came before is sent whole.
func TestLastAttemptKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, src, _ := pumped(t, 1<<20)
		first, last := &target{}, &target{}
		send(t, u, first)
		src.put(bytes.Repeat([]byte("x"), 30_000), nil)
		synctest.Wait()
		u.Detach()
		src.put(bytes.Repeat([]byte("x"), 30_000), nil) // while there is no attempt
		synctest.Wait()
		if !u.Replayable() {
			t.Fatal("not replayable within its limit")
		}
		if _, err := u.Send(last, time.Time{}, true); err != nil {
			t.Fatal(err)
		}
		src.put(bytes.Repeat([]byte("x"), 30_000), io.EOF)
		synctest.Wait()
		if !last.holds(90_000, true)() || u.Received() != 90_000 {
			t.Errorf("the last attempt got %d bytes of 90000, ended %v", last.got.Len(), last.ended)
		}
		if u.buf != nil || u.pooled != nil || u.Replayable() {
			t.Errorf("holds %d bytes that no attempt can use", cap(u.buf))
		}
	})
}

// Between attempts no more is read than can be kept.
func TestWaitsForAnAttempt(t *testing.T) {
	u, src, _ := pumped(t, 1_000)
	first, second := &target{fail: errors.New("gone")}, &target{}
	send(t, u, first)
	src.put(bytes.Repeat([]byte("x"), 5_000), io.EOF)
	eventually(t, "the buffer is full", func() bool { u.mu.Lock(); defer u.mu.Unlock(); return len(u.buf) >= 1_000 })
	u.Detach()
	if !u.Replayable() {
		t.Fatal("what the client has sent is lost")
	}
	send(t, u, second)
	eventually(t, "the second gets all", second.holds(5_000, true))
}

// Until the first attempt is detached its stream is there to be written to; what
// the second was promised is kept all the same.
func TestReplayableStaysTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, src, _ := pumped(t, 10_000)
		first, second := &target{}, &target{}
		send(t, u, first)
		src.put(bytes.Repeat([]byte("x"), 5_000), nil)
		synctest.Wait()
		if !u.Replayable() {
			t.Fatal("not replayable within its limit")
		}
		src.put(bytes.Repeat([]byte("x"), 20_000), io.EOF)
		synctest.Wait()
		if !first.holds(10_000, false)() {
			t.Errorf("the first attempt got %d bytes, ended %v", first.got.Len(), first.ended)
		}
		u.Detach()
		send(t, u, second)
		synctest.Wait()
		if !second.holds(25_000, true)() {
			t.Errorf("the second attempt got %d bytes of 25000, ended %v", second.got.Len(), second.ended)
		}
		if u.Replayable() {
			t.Error("replayable beyond its limit")
		}
	})
}

func TestUnpinnedBodyGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, src, _ := pumped(t, 10_000)
		to := &target{}
		send(t, u, to)
		if !u.Replayable() {
			t.Fatal("not replayable within its limit")
		}
		src.put(bytes.Repeat([]byte("x"), 20_000), io.EOF)
		synctest.Wait()
		u.Unpin()
		synctest.Wait()
		if !to.holds(20_000, true)() {
			t.Errorf("the attempt got %d bytes of 20000, ended %v", to.got.Len(), to.ended)
		}
	})
}

func TestDetachWaitsForTheWriteUnderWay(t *testing.T) {
	u, src, _ := pumped(t, 1<<20)
	to := &target{gate: make(chan struct{})}
	send(t, u, to)
	src.put([]byte("x"), nil)
	eventually(t, "the write is under way", func() bool { u.mu.Lock(); defer u.mu.Unlock(); return u.writing })
	detached := make(chan struct{})
	go func() { u.Detach(); close(detached) }()
	select {
	case <-detached:
		t.Error("detached during a write")
	default:
	}
	close(to.gate)
	<-detached
}

// A panic of the pump ends its exchange, and keeps nobody waiting.
func TestDefectOfThePump(t *testing.T) {
	for name, spoil := range map[string]func(to *target, src *source){
		"writing": func(to *target, src *source) { to.fail = errPanic },
		"reading": func(to *target, src *source) { src.end = errPanic },
	} {
		t.Run(name, func(t *testing.T) {
			u, src, x := pumped(t, 1<<20)
			to := &target{}
			spoil(to, src)
			send(t, u, to)
			src.put([]byte("x"), src.end)
			eventually(t, "the exchange ends", func() bool { return x.Cancelled() == defect })
			if u.Complete() {
				t.Error("the request is taken to be complete")
			}
			u.Detach()
			if !u.Stop() {
				t.Error("the client is taken to have sent it all")
			}
		})
	}
}

var errPanic = errors.New("defect of a codec")

func TestClientThatGoes(t *testing.T) {
	u, src, x := pumped(t, 1<<20)
	send(t, u, &target{})
	src.put([]byte("some"), io.ErrUnexpectedEOF)
	eventually(t, "the exchange is cancelled", func() bool { return x.Cancelled() == ClientGone })
	if !u.Stop() {
		t.Error("the request is taken to be complete")
	}
	if u.Received() != 4 {
		t.Errorf("received %d bytes", u.Received())
	}
}
