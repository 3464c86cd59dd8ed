// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"sync"
	"sync/atomic"
)

// A Source holds the current SVID. The zero value is empty and ready.
type Source struct {
	live atomic.Pointer[SVID]

	mu      sync.Mutex
	changed chan struct{} // closed by the next Set; nil until somebody waits
}

// Current is the SVID of now, nil before the first.
func (s *Source) Current() *SVID { return s.live.Load() }

// Set makes v current for every handshake that begins after it.
func (s *Source) Set(v *SVID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live.Store(v)
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Changed is closed when the next SVID has become current. Take it before looking
// at Current, so that no change is missed.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Wait returns the current SVID as soon as there is one.
func (s *Source) Wait(ctx context.Context) (*SVID, error) {
	for {
		next := s.Changed()
		if v := s.Current(); v != nil {
			return v, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
