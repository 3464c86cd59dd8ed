// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/meltemi/meltemi/mesh"
)

// Backoff between failed requests. ztunnel's values: an authority that is
// overloaded is not helped by impatience, and the old certificate lives on.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 150 * time.Second
)

// A Rotator keeps a Source's certificate valid.
type Rotator struct {
	Identity  mesh.Identity
	Authority Authority
	Source    *Source
	// Lifetime asked for; zero leaves it to the authority.
	Lifetime time.Duration
	Log      *slog.Logger // nil discards
}

// Run fetches a certificate at once and the next one at half of what then
// remains, give or take a hundredth, until ctx ends; then it returns nil. Failures are
// retried and never take the present certificate away.
func (r *Rotator) Run(ctx context.Context) error {
	if r.Authority == nil || r.Source == nil {
		return errors.New("certificate rotation: an Authority and a Source are needed")
	}
	if err := r.Identity.Validate(); err != nil {
		return fmt.Errorf("certificate rotation: %w", err)
	}
	log := r.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	retry := firstRetry
	for {
		v, err := r.fetch(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var wait time.Duration
		if err == nil {
			r.Source.Set(v)
			retry = firstRetry
			wait = halfLife(time.Until(v.NotAfter()))
			log.Info("certificate issued", "certificate", v, "next_in", wait)
		} else {
			wait = r.patience(retry)
			retry = min(2*retry, lastRetry)
			log.Warn("certificate request failed; the present certificate stays in use", "identity", r.Identity.String(), "error", err, "retry_in", wait)
		}
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// fetch makes a key, has it certified and checks that the answer is what was asked for.
func (r *Rotator) fetch(ctx context.Context) (*SVID, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := NewRequest(r.Identity, key)
	if err != nil {
		return nil, err
	}
	chain, roots, err := r.Authority.Sign(ctx, csr, r.Lifetime)
	if err != nil {
		return nil, err
	}
	v, err := NewSVID(chain, key, roots)
	if err != nil {
		return nil, fmt.Errorf("the authority's answer: %w", err)
	}
	if v.Identity != r.Identity {
		return nil, fmt.Errorf("the authority's answer: asked for %s, got %s", r.Identity, v.Identity)
	}
	return v, nil
}

// halfLife is counted from now, because authorities date certificates back.
func halfLife(remaining time.Duration) time.Duration {
	half := max(remaining/2, firstRetry/4) // an authority of very short lives is not to be flooded
	return half + time.Duration((rand.Float64()*2-1)*0.01*float64(half))
}

// patience is how long to wait after a failure: the backoff, with a fifth of
// jitter; but a certificate that ends soon is worth trying for more often.
func (r *Rotator) patience(backoff time.Duration) time.Duration {
	wait := time.Duration(float64(backoff) * (0.8 + 0.4*rand.Float64()))
	if v := r.Source.Current(); v != nil {
		if left := time.Until(v.NotAfter()) / 4; left > firstRetry/4 {
			wait = min(wait, left)
		}
	}
	return wait
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
