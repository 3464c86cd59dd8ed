// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package trace

import "math/rand/v2"

// A RequestID is a UUID of version 4 as it stands in x-request-id. Its 15th
// digit tells the sampling decision to the next hops (Envoy's UUID request id
// extension).
type RequestID [36]byte

// A Reason is why a request is traced.
type Reason byte

// The reasons, by the digit that stands for them.
const (
	NotTraced Reason = '4' // as in any UUID of version 4
	Sampled   Reason = '9'
	Forced    Reason = 'a' // x-envoy-force-trace
	ByClient  Reason = 'b' // x-client-trace-id
)

const reasonAt = 14

// NewRequestID draws an id. It is unique, not secret.
func NewRequestID() (id RequestID) {
	const digits = "0123456789abcdef"
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range id {
		switch i {
		case 8, 13, 18, 23:
			id[i] = '-'
		case reasonAt:
			id[i] = byte(NotTraced)
		case 19:
			id[i] = digits[8|lo&3]
			lo >>= 4
		default:
			if i < 19 {
				id[i] = digits[hi&15]
				hi >>= 4
			} else {
				id[i] = digits[lo&15]
				lo >>= 4
			}
		}
	}
	return id
}

// ParseRequestID reads an id; false if s is no UUID and so tells no decision.
func ParseRequestID(s string) (id RequestID, ok bool) {
	if len(s) != len(id) || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	copy(id[:], s)
	return id, true
}

// Reason returns the decision packed into id.
func (id *RequestID) Reason() Reason {
	switch r := Reason(id[reasonAt]); r {
	case Sampled, Forced, ByClient:
		return r
	}
	return NotTraced
}

// SetReason packs a decision into id.
func (id *RequestID) SetReason(r Reason) { id[reasonAt] = byte(r) }

// Fraction maps id to 0 … 9999, evenly and always the same: hops that sample by
// it agree. False if its first digits are none.
func (id *RequestID) Fraction() (uint32, bool) {
	var b [4]byte
	if !unhex(b[:], string(id[:8])) {
		return 0, false
	}
	return (uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])) % 10_000, true
}

// Sampling is the shares of requests that are traced, in 1/10,000
// (HttpConnectionManager.Tracing).
type Sampling struct{ Client, Random, Overall uint32 }

// Decide returns why a request is traced. A decision that id carries stands; the
// others come in Envoy's order. Overall is a cap on all of them.
func (s Sampling) Decide(id *RequestID, byClient, forced bool) Reason {
	n, ok := id.Fraction()
	if !ok {
		n = rand.Uint32N(10_000)
	}
	r := id.Reason()
	if r == NotTraced {
		switch {
		case byClient && n < s.Client:
			r = ByClient
		case forced:
			r = Forced
		case n < s.Random:
			r = Sampled
		}
	}
	if r != NotTraced && n >= s.Overall {
		return NotTraced
	}
	return r
}
