// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"sync"
	"time"
)

// A bucket lets through rate events per second, and as many at once after a pause.
type bucket struct {
	rate float64

	mu     sync.Mutex
	tokens float64
	at     time.Time
}

func newBucket(rate float64) *bucket {
	return &bucket{rate: rate, tokens: max(rate, 1), at: time.Now()}
}

// take reports whether an event may happen now.
func (b *bucket) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill()
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// wait returns when an event may happen, or with ctx's error.
func (b *bucket) wait(ctx context.Context) error {
	b.mu.Lock()
	b.refill()
	b.tokens-- // below zero is a place in the queue
	debt := -b.tokens
	b.mu.Unlock()
	if debt <= 0 {
		return nil
	}
	t := time.NewTimer(time.Duration(debt / b.rate * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bucket) refill() {
	now := time.Now()
	b.tokens = min(max(b.rate, 1), b.tokens+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
}
