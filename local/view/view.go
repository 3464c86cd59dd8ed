// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package view shows a running mesh to people.
//
//	view.go       what is shown: a header, a Picture, events
//	render.go     all of it as text of a given width; pure
//	lines.go      for logs and pipes: events as they come, traffic now and then
//	screen.go     for terminals: Bubble Tea draws anew when something has changed
//	outlet.go     writing to a terminal that may take nothing
//	discard_*.go  giving up on what it did not take
//
// Why with Bubble Tea, and what is not left to it: RATIONALE.md, "Bubble Tea draws the live view".
package view

import (
	"context"
	"time"

	"github.com/meltemi/meltemi/local/watch"
)

// A Header is what stays the same while a mesh runs.
type Header struct {
	Page    string // where the application is
	Config  string // folder to edit
	Scratch bool   // Config is a copy that is not for people
	State   string // state folder
	How     string // how traffic gets to the proxies
}

// An Event is something that happened.
type Event struct {
	At   time.Time
	Text string
	Bad  bool
}

// A Face shows a mesh.
type Face interface {
	Begin(Header)
	Show(watch.Picture)
	Say(Event)
	// Run shows until ctx ends. quit is called if somebody asks for the end here.
	Run(ctx context.Context, quit func()) error
	// Close gives back, at once, what Run has taken; Run does so itself when it ends.
	Close()
}
