// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import "time"

// How sure one must be before connections are retired early.
const (
	closesToBelieve = 2                // closes after about the same idle time
	believeFor      = 10 * time.Minute // then one more close must confirm
)

// A keepAlive learns how long a server keeps idle connections, so that ours are
// retired before the server closes them under a request that is on its way: the
// commonest 503. One such close proves little, as a server that restarts closes
// everything; several at different moments, after about the same idle time, do.
type keepAlive struct {
	said  time.Duration // Keep-Alive: timeout=…, 0: nothing
	low   time.Duration // a connection that idled this long was still open
	high  time.Duration // and closed when it had idled this long
	seen  int           // closes that agree with it
	last  time.Time     // of the last close that counted
	until time.Time     // how long it is believed
}

// promised notes what the server says itself.
func (k *keepAlive) promised(d time.Duration) {
	if d > 0 {
		k.said = d
	}
}

// closed notes that the server closed a connection that had been idle for
// longer than low and not longer than high.
func (k *keepAlive) closed(low, high time.Duration, now time.Time) {
	if low <= 0 || k.seen > 0 && now.Sub(k.last) < sweepEvery {
		return // too short to tell; or one event closed many
	}
	k.last = now
	slack := max(2*sweepEvery, k.high/10)
	if k.seen == 0 || low > k.high+slack || high < k.low-slack {
		k.low, k.high, k.seen = low, high, 1
		return
	}
	k.low, k.high = min(k.low, low), max(k.low, min(k.high, high))
	if k.seen++; k.seen >= closesToBelieve {
		k.until = now.Add(believeFor)
	}
}

// limit returns how long a connection may idle, 0 if nothing is known.
func (k *keepAlive) limit(now time.Time) time.Duration {
	var d time.Duration
	if k.said > 0 {
		d = margin(k.said)
	}
	if k.seen >= closesToBelieve {
		if now.After(k.until) {
			k.seen = closesToBelieve - 1 // the next close decides
		} else if m := margin(k.low); d == 0 || m < d {
			d = m
		}
	}
	return d
}

// margin keeps a tenth of d, and no less than a second if d is long enough, for
// a request that is on its way.
func margin(d time.Duration) time.Duration {
	if d < 3*time.Second {
		return d * 2 / 3
	}
	return d - max(d/10, time.Second)
}
