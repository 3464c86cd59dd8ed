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

// settled is how long after the first configuration memory is given back: soon,
// and again when what was asked for on demand has come.
var settled = [...]time.Duration{3 * time.Second, time.Minute}

// Settle waits until ready returns nil, lets things calm down and gives back what
// only starting took, and then what every burst of traffic took, until ctx ends. What of the program a quiet process
// has not used since the last time it gives back every minute: each page that is used maps its neighbours, too.
func Settle(ctx context.Context, ready func() error) {
	const poll = 200 * time.Millisecond
	for ready() != nil {
		if !wait(ctx, poll) {
			return
		}
	}
	for _, d := range settled {
		if !wait(ctx, d) {
			return
		}
		giveBack()
	}
	var p pulse
	last := spent()
	for n := 1; wait(ctx, beat); n++ {
		now := spent()
		switch used := now - last; {
		case p.calmed(used):
			giveBack()
		case used < calm && n%beatsPerMinute == 0:
			dropCode()
		}
		last = now
	}
}

func giveBack() {
	debug.FreeOSMemory()
	dropCode()
}

// beat is how often the process looks at how busy it is.
const (
	beat           = 15 * time.Second
	beatsPerMinute = int(time.Minute / beat)
)

// calm is how little of a processor a beat without a burst takes.
const calm = beat / 50

// A pulse tells when a burst is over.
type pulse struct{ raised bool }

// calmed takes the processor time of one beat, and reports whether it is the first calm one after a burst.
func (p *pulse) calmed(used time.Duration) bool {
	switch {
	case used >= calm:
		p.raised = true
	case p.raised:
		p.raised = false
		return true
	}
	return false
}

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
