// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package logs sets up the program's own messages: structured, with a level per
// component that can be changed while the program runs (Envoy: /logging).
package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
)

// A Config says how messages are written.
type Config struct {
	JSON  bool
	Level slog.Level            // of components that have none of their own
	Of    map[string]slog.Level // by component
}

// Logs makes a logger for each component and keeps their levels.
type Logs struct {
	handler slog.Handler

	mu     sync.Mutex
	levels map[string]*slog.LevelVar
	level  slog.Level
}

// New returns loggers that write to w.
func New(w io.Writer, cfg Config) *Logs {
	opt := &slog.HandlerOptions{Level: slog.Level(-128)} // each component has its own gate
	l := &Logs{levels: map[string]*slog.LevelVar{}, level: cfg.Level}
	if cfg.JSON {
		l.handler = slog.NewJSONHandler(w, opt)
	} else {
		l.handler = slog.NewTextHandler(w, opt)
	}
	for name, level := range cfg.Of {
		l.levelLocked(name).Set(level)
	}
	return l
}

// Logger returns the component's logger.
func (l *Logs) Logger(component string) *slog.Logger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slog.New(&gate{l.handler, l.levelLocked(component)}).With("component", component)
}

func (l *Logs) levelLocked(component string) *slog.LevelVar {
	v := l.levels[component]
	if v == nil {
		v = new(slog.LevelVar)
		v.Set(l.level)
		l.levels[component] = v
	}
	return v
}

// Set changes the level of a component; "" is all of them.
func (l *Logs) Set(component string, level slog.Level) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if component == "" {
		l.level = level
		for _, v := range l.levels {
			v.Set(level)
		}
		return nil
	}
	v := l.levels[component]
	if v == nil {
		return fmt.Errorf("no component is called %q; there are %s", component, strings.Join(slices.Sorted(maps.Keys(l.levels)), ", "))
	}
	v.Set(level)
	return nil
}

// Levels returns the level of each component.
func (l *Logs) Levels() map[string]slog.Level {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]slog.Level, len(l.levels))
	for name, v := range l.levels {
		out[name] = v.Level()
	}
	return out
}

// Levels of slog lack two that Envoy has.
const (
	Trace = slog.Level(-8)
	Off   = slog.Level(100)
)

// ParseLevel reads a level as Envoy spells it: trace, debug, info, warning,
// error, critical or off.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "trace":
		return Trace, nil
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warning", "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "critical":
		return slog.LevelError + 4, nil
	case "off":
		return Off, nil
	}
	return 0, fmt.Errorf("log level %q is none of trace, debug, info, warning, error, critical, off", s)
}

// gate is a handler behind a level.
type gate struct {
	slog.Handler
	level *slog.LevelVar
}

func (g *gate) Enabled(_ context.Context, level slog.Level) bool { return level >= g.level.Level() }

func (g *gate) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &gate{g.Handler.WithAttrs(attrs), g.level}
}

func (g *gate) WithGroup(name string) slog.Handler { return &gate{g.Handler.WithGroup(name), g.level} }
