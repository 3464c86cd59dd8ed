// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"fmt"
	"time"
)

// A nuisance is a kind of frame, or of behaviour, that a peer can use to keep us
// busy with nothing.
type nuisance uint8

const (
	nuisanceReset nuisance = iota
	nuisancePing
	nuisanceSettings
	nuisanceWindowUpdate
	nuisancePriority
	nuisanceUnknown
	nuisances
)

// allowances says how many of each nuisance a window of time allows: base, and
// more for work that the peer gave us meanwhile.
var allowances = [nuisances]struct {
	limit   string
	what    string
	allowed func(l *Limits, f *flood) int
}{
	nuisanceReset:        {"Resets", "streams reset", func(l *Limits, f *flood) int { return l.Resets + f.opened/2 }},
	nuisancePing:         {"Pings", "PING frames", func(l *Limits, f *flood) int { return l.Pings + f.work }},
	nuisanceSettings:     {"Settings", "SETTINGS frames", func(l *Limits, f *flood) int { return l.Settings + f.work }},
	nuisanceWindowUpdate: {"WindowUpdates", "WINDOW_UPDATE frames", func(l *Limits, f *flood) int { return l.WindowUpdates + 10*f.work }},
	nuisancePriority:     {"Priorities", "PRIORITY frames", func(l *Limits, f *flood) int { return l.Priorities * (1 + f.opened) }},
	nuisanceUnknown:      {"Unknown", "frames that mean nothing to us", func(l *Limits, f *flood) int { return l.Unknown + f.work }},
}

// A flood counts nuisances and work in windows of time.
type flood struct {
	since        time.Time
	counts       [nuisances]int
	opened, work int
	empty        int // DATA frames in a row that carried nothing
}

// charge counts one nuisance and returns why the connection must end, or nil.
func (f *flood) charge(k nuisance, l *Limits) error {
	if now := time.Now(); now.Sub(f.since) > l.Window {
		*f = flood{since: now, empty: f.empty}
	}
	f.counts[k]++
	a := &allowances[k]
	if allowed := a.allowed(l, f); f.counts[k] > allowed {
		return flooding(a.limit, fmt.Sprintf("%d %s within %v, allowed are %d", f.counts[k], a.what, l.Window, allowed))
	}
	return nil
}

func flooding(limit, reason string) ConnError {
	return ConnError{Code: CodeEnhanceYourCalm, Limit: limit, Reason: reason}
}
