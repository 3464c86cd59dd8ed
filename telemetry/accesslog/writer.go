// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a Writer.
const (
	// queueBytes is how much may wait to be written; lines beyond are dropped.
	queueBytes = 4 << 20
	// flushBytes wakes the writing goroutine before the interval is over.
	flushBytes = 64 << 10
	// DefaultInterval is how long a line waits at most (Envoy: file_flush_interval).
	DefaultInterval = time.Second
)

// A Writer takes lines from many goroutines and writes them from one of its own.
// Taking a line copies it and never waits for the writing.
type Writer struct {
	open func() (io.WriteCloser, error)

	dropped atomic.Uint64
	failed  atomic.Uint64

	wake   chan struct{}
	stop   chan struct{}
	done   chan struct{}
	reopen atomic.Bool

	mu      sync.Mutex
	pending []byte // lines that wait
	closed  bool
}

// NewWriter returns a writer to what open opens; open is called again after Reopen.
func NewWriter(open func() (io.WriteCloser, error), interval time.Duration) (*Writer, error) {
	out, err := open()
	if err != nil {
		return nil, err
	}
	w := &Writer{open: open, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go w.run(out, interval)
	return w, nil
}

// Write takes a line. It returns no error: a line that cannot be taken is counted.
func (w *Writer) Write(line []byte) {
	w.mu.Lock()
	if w.closed || len(w.pending)+len(line) > queueBytes {
		w.mu.Unlock()
		w.dropped.Add(1)
		return
	}
	before := len(w.pending)
	w.pending = append(w.pending, line...)
	full := before < flushBytes && len(w.pending) >= flushBytes
	w.mu.Unlock()
	if full {
		w.kick()
	}
}

func (w *Writer) kick() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Dropped returns how many lines could not be taken.
func (w *Writer) Dropped() uint64 { return w.dropped.Load() }

// Failed returns how many writes to the file failed.
func (w *Writer) Failed() uint64 { return w.failed.Load() }

// Reopen has the file opened anew before the next write (log rotation).
func (w *Writer) Reopen() {
	w.reopen.Store(true)
	w.kick()
}

// Close writes what waits, and closes the file.
func (w *Writer) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.stop)
	}
	w.mu.Unlock()
	<-w.done
}

func (w *Writer) run(out io.WriteCloser, interval time.Duration) {
	defer close(w.done)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var spare []byte
	for last := false; !last; {
		select {
		case <-w.stop:
			last = true
		case <-w.wake:
		case <-tick.C:
		}
		if w.reopen.Swap(false) {
			if next, err := w.open(); err == nil {
				_ = out.Close()
				out = next
			} else {
				w.failed.Add(1)
			}
		}
		w.mu.Lock()
		batch := w.pending
		w.pending = spare[:0]
		w.mu.Unlock()
		if len(batch) > 0 {
			if _, err := out.Write(batch); err != nil {
				w.failed.Add(1)
			}
		}
		if spare = batch; cap(spare) > 4*flushBytes {
			spare = nil // a burst is over; give its memory back
		}
	}
	_ = out.Close()
}

// Files are the writers of a process, one per path, however many configurations
// name it.
type Files struct {
	interval time.Duration

	mu      sync.Mutex
	writers map[string]*Writer
	closed  bool
}

// NewFiles returns no files yet.
func NewFiles(interval time.Duration) *Files {
	if interval <= 0 {
		interval = DefaultInterval
	}
	return &Files{interval: interval, writers: map[string]*Writer{}}
}

// maxFiles bounds how many paths configuration can have open.
const maxFiles = 64

// Get returns the writer for path: "/dev/stdout", "/dev/stderr" or a file, which
// is created if need be and appended to.
func (f *Files) Get(path string) (*Writer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.writers[path]; w != nil {
		return w, nil
	}
	if f.closed {
		return nil, errors.New("access log: the process is ending")
	}
	if len(f.writers) >= maxFiles {
		return nil, fmt.Errorf("access log %q: %d files are open already", clip(path), maxFiles)
	}
	w, err := NewWriter(func() (io.WriteCloser, error) { return openFile(path) }, f.interval)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	f.writers[path] = w
	return w, nil
}

// Dropped returns how many lines all writers could not take.
func (f *Files) Dropped() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := uint64(0)
	for _, w := range f.writers {
		n += w.Dropped()
	}
	return n
}

// Reopen has all files opened anew (log rotation).
func (f *Files) Reopen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.writers {
		w.Reopen()
	}
}

// Close writes what waits, and closes all files.
func (f *Files) Close() {
	f.mu.Lock()
	writers := f.writers
	f.writers, f.closed = map[string]*Writer{}, true
	f.mu.Unlock()
	for _, w := range writers {
		w.Close()
	}
}

// stays keeps the process's own outputs open.
type stays struct{ io.Writer }

func (stays) Close() error { return nil }

func openFile(path string) (io.WriteCloser, error) {
	switch path {
	case "/dev/stdout":
		return stays{os.Stdout}, nil
	case "/dev/stderr":
		return stays{os.Stderr}, nil
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
}
