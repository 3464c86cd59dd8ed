// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// Config says what to read. Begin with [Defaults].
type Config struct {
	Name      string   // of the source
	Paths     []string // folders, or single files
	Namespace mesh.Namespace
	// Debounce is how long files must be left alone before they are read; a stream of
	// changes is read after ten times as long.
	Debounce time.Duration
	// Rescan is how often folders are looked through whether or not a change was reported.
	Rescan time.Duration
	Limits Limits
	// Keep is a folder of the source's own in which the last good version of each object is kept, so that it stays in
	// force when the process starts again and the newest is none; "": nothing is kept.
	Keep string
	// Good says whether an object will be admitted; nil: whatever can be read is.
	Good func(source.Entry) bool
}

// Defaults reads paths.
func Defaults(paths ...string) Config {
	return Config{
		Name: "file", Paths: paths, Namespace: "default",
		Debounce: 10 * time.Millisecond, // a save is a few system calls
		Rescan:   5 * time.Second,       // for file systems that report nothing
	}
}

// A Source reads folders of YAML.
type Source struct {
	cfg    Config
	parser *parser
}

var _ source.Source = (*Source)(nil)

// New checks cfg. Paths that do not exist are no error: they may come to be.
func New(cfg Config) (*Source, error) {
	if len(cfg.Paths) == 0 {
		return nil, errors.New("file source: no folder to read; name at least one")
	}
	if cfg.Debounce <= 0 || cfg.Rescan <= 0 {
		return nil, errors.New("file source: Debounce and Rescan must be positive")
	}
	cfg.Limits = cfg.Limits.withDefaults()
	return &Source{cfg, &parser{namespace: cfg.Namespace, limits: cfg.Limits}}, nil
}

// Name implements [source.Source].
func (s *Source) Name() string { return s.cfg.Name }

// Once reads everything once and reports it.
func (s *Source) Once(sink source.Sink) {
	sink.Apply(newScan(s.cfg, s.parser, nil).look(nil))
	sink.Synced()
}

// recheck is how long a file that has just become empty is given to be filled.
const recheck = 100 * time.Millisecond

// Run implements [source.Source].
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	var (
		events  chan fsnotify.Event
		lost    chan error
		watch   func(dir string) error
		touched = map[string]bool{} // files that were reported changed since the last look
	)
	if w, err := fsnotify.NewWatcher(); err == nil {
		defer func() { _ = w.Close() }()
		events, lost, watch = w.Events, w.Errors, w.Add
	}
	scan := newScan(s.cfg, s.parser, watch)
	next := s.cfg.Rescan
	look := func() {
		sink.Apply(scan.look(touched))
		clear(touched)
		switch {
		case len(scan.hollow) > 0:
			next = recheck
		case scan.blind:
			next = min(s.cfg.Rescan, time.Second)
		default:
			next = s.cfg.Rescan
		}
	}
	if b := scan.recall(); len(b.Put) > 0 {
		sink.Apply(b)
	}
	look()
	sink.Synced()

	timer := time.NewTimer(next)
	defer timer.Stop()
	var first time.Time // of the changes not yet looked at
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			if e.Op == fsnotify.Chmod {
				continue
			}
			touched[filepath.Clean(e.Name)] = true
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(s.cfg.Debounce, time.Until(first.Add(10*s.cfg.Debounce))))
		case <-lost: //nolint:errcheck // what the error is changes nothing
			// Events were dropped: what a look finds by time and size is all there is.
			scan.walked = time.Time{}
			timer.Reset(s.cfg.Debounce)
		case <-timer.C:
			look()
			first = time.Time{}
			timer.Reset(next)
		}
	}
}
