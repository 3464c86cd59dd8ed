// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A Sender delivers spans of one resource to a collector.
type Sender interface {
	// Send delivers a batch or returns an error; it does not keep the slice.
	Send(ctx context.Context, batch []*Span) error
	Close() error
}

// Bounds of an Exporter.
const (
	queueSpans   = 2048
	batchSpans   = 512
	batchEvery   = time.Second
	sendDeadline = 10 * time.Second
	closeWithin  = 2 * time.Second
)

// An Exporter sends spans from a goroutine of its own. What the collector is too
// slow for is dropped and counted.
type Exporter struct {
	sender  Sender
	queue   chan *Span
	stop    chan struct{}
	done    chan struct{}
	once    sync.Once
	ctx     context.Context // of sending; ends a while after Close began
	cancel  context.CancelFunc
	grace   time.Duration
	sent    atomic.Uint64
	dropped atomic.Uint64
	failed  atomic.Uint64
	lastErr atomic.Pointer[error]
}

// NewExporter returns an exporter that sends by s until Close.
func NewExporter(s Sender) *Exporter { return newExporter(s, closeWithin) }

func newExporter(s Sender, grace time.Duration) *Exporter {
	e := &Exporter{sender: s, queue: make(chan *Span, queueSpans), stop: make(chan struct{}), done: make(chan struct{}), grace: grace}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	go e.run()
	return e
}

// Export takes a span; nobody writes to it afterwards. It never blocks.
func (e *Exporter) Export(s *Span) {
	select {
	case e.queue <- s:
	default:
		e.dropped.Add(1)
	}
}

// Stats returns how many spans were sent, dropped before sending, and lost in sending.
func (e *Exporter) Stats() (sent, dropped, failed uint64) {
	return e.sent.Load(), e.dropped.Load(), e.failed.Load()
}

// Err returns the last error of sending, or nil.
func (e *Exporter) Err() error {
	if p := e.lastErr.Load(); p != nil {
		return *p
	}
	return nil
}

// Close sends what waits, within two seconds, and ends.
func (e *Exporter) Close() {
	e.once.Do(func() {
		close(e.stop)
		time.AfterFunc(e.grace, e.cancel)
	})
	<-e.done
	e.cancel()
}

func (e *Exporter) run() {
	defer close(e.done)
	defer func() { _ = e.sender.Close() }()
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	batch := make([]*Span, 0, batchSpans)
	for {
		select {
		case s := <-e.queue:
			if batch = append(batch, s); len(batch) < batchSpans {
				continue
			}
		case <-tick.C:
		case <-e.stop:
			e.drain(batch)
			return
		}
		e.send(batch)
		clear(batch)
		batch = batch[:0]
	}
}

func (e *Exporter) drain(batch []*Span) {
	for {
		select {
		case s := <-e.queue:
			if batch = append(batch, s); len(batch) < batchSpans {
				continue
			}
		default:
			e.send(batch)
			return
		}
		e.send(batch)
		batch = batch[:0]
	}
}

func (e *Exporter) send(batch []*Span) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, sendDeadline)
	defer cancel()
	if err := e.sender.Send(ctx, batch); err != nil {
		e.failed.Add(uint64(len(batch)))
		e.lastErr.Store(&err)
		return
	}
	e.sent.Add(uint64(len(batch)))
}
