// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package lean keeps the process of a proxy small: there is one beside every
// workload, and most of them are at rest.
//
//	lean.go        when: the collector's pace, and Settle
//	code_linux.go  what of the program itself need not stay mapped
//
// What starting up and the first configuration take (registering and reading
// protobufs, above all) is several times what carrying traffic takes; and what a
// burst of traffic took is not what the calm after it needs.
package lean

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// garbage is GOGC for a proxy. Exchanges allocate next to nothing, so that the
// collector hardly runs under load either; with Go's 100 the heap at rest grows to twice
// what is alive in it before anything is collected.
const garbage = 50

// Pace sets how eagerly memory is collected, unless GOGC says so.
func Pace() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
}

// settled is how long after the first configuration memory is given back first.
const settled = 3 * time.Second

// Settle waits until ready returns nil, lets things calm down and gives back what
// only starting took; and then, after every quiet minute until ctx ends, what traffic took, and what of the program is
// not used any more: each page that is used maps its neighbours, too.
func Settle(ctx context.Context, ready func() error) {
	const poll = 200 * time.Millisecond
	for ready() != nil {
		if !wait(ctx, poll) {
			return
		}
	}
	if !wait(ctx, settled) {
		return
	}
	giveBack()
	for last := spent(); wait(ctx, beat); {
		now := spent()
		if now-last < quiet {
			giveBack()
		}
		last = now
	}
}

func giveBack() {
	debug.FreeOSMemory()
	dropCode()
}

// beat is how often the process looks at how busy it is; quiet is how little of a
// processor it takes in one beat at rest.
const (
	beat  = time.Minute
	quiet = beat / 50
)

// spent is the processor time that the process has had.
func spent() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
