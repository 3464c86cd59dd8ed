// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Ready collects what a program still waits for before it can serve. The zero value is ready.
type Ready struct {
	mu      sync.Mutex
	missing []string
	changed chan struct{} // closed when nothing is missing any more; nil if nobody waits
}

// Need says that what is still missing; calling got says that it no longer is. got may be called more than once.
func (r *Ready) Need(what string) (got func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = append(r.missing, what)
	var once sync.Once
	return func() { once.Do(func() { r.got(what) }) }
}

func (r *Ready) got(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.missing, what); i >= 0 {
		r.missing = slices.Delete(r.missing, i, i+1)
	}
	if len(r.missing) == 0 && r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Missing returns what is still missing, in the order it was needed.
func (r *Ready) Missing() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.missing)
}

// Done returns a channel that is closed when nothing is missing.
func (r *Ready) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed != nil {
		return r.changed
	}
	ch := make(chan struct{})
	if len(r.missing) == 0 {
		close(ch)
		return ch
	}
	r.changed = ch
	return ch
}

// ServeHTTP answers 200 when ready, else 503 with what is missing.
func (r *Ready) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	missing := r.Missing()
	if len(missing) == 0 {
		_, _ = fmt.Fprintln(w, "ready")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = fmt.Fprintf(w, "not ready: waiting for %s\n", strings.Join(missing, ", "))
}
