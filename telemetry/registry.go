// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"slices"
	"strings"
	"sync"
)

// A Config tells a Registry what Envoy's stats_config would.
type Config struct {
	// Buckets gives histograms whose name has a prefix their own bounds; the first
	// that fits counts. The others have DefaultBuckets.
	Buckets []BucketRule
}

// A BucketRule is one of Envoy's histogram_bucket_settings.
type BucketRule struct {
	Prefix string
	Bounds []float64 // ascending
}

// A Registry knows all metrics of a program. Its methods may be called from any
// goroutine; those that return a metric take a lock, the metrics take none.
type Registry struct {
	cfg Config

	mu         sync.Mutex
	series     map[string]*series // by kind and text name
	collectors map[int]func(*Emitter)
	next       int
}

type series struct {
	template string
	tags     []Tag
	metric   any // *Counter, *Gauge or *Histogram
	users    int
}

// NewRegistry returns an empty registry.
func NewRegistry(cfg Config) *Registry {
	return &Registry{cfg: cfg, series: map[string]*series{}, collectors: map[int]func(*Emitter){}}
}

// Counter returns the counter of that name and these tags, which is made at the
// first call. See name.go for how names are written.
func (r *Registry) Counter(template string, tags ...Tag) *Counter {
	return register(r, template, tags, func() *Counter { return new(Counter) })
}

// Gauge is like Counter.
func (r *Registry) Gauge(template string, tags ...Tag) *Gauge {
	return register(r, template, tags, func() *Gauge { return new(Gauge) })
}

// Histogram is like Counter.
func (r *Registry) Histogram(template string, tags ...Tag) *Histogram {
	return register(r, template, tags, func() *Histogram { return NewHistogram(r.Bounds(template)) })
}

func register[M any](r *Registry, template string, tags []Tag, make func() *M) *M {
	name := textName(template, tags)
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.series[name]; ok {
		if m, ok := s.metric.(*M); ok {
			s.users++
			return m
		}
		panic("telemetry: " + name + " is registered as two kinds of metric")
	}
	m := make()
	r.series[name] = &series{template: template, tags: slices.Clone(tags), metric: m, users: 1}
	return m
}

// Drop forgets the metric of that name and these tags when as many have dropped
// it as have asked for it: a listener or route that is gone.
func (r *Registry) Drop(template string, tags ...Tag) {
	name := textName(template, tags)
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.series[name]; ok {
		if s.users--; s.users <= 0 {
			delete(r.series, name)
		}
	}
}

// Bounds returns the bucket bounds of histograms of that name.
func (r *Registry) Bounds(template string) []float64 {
	for _, rule := range r.cfg.Buckets {
		if strings.HasPrefix(template, rule.Prefix) {
			return rule.Bounds
		}
	}
	return DefaultBuckets()
}

// Collect has f called at each Gather; it emits what it counts elsewhere. The
// function returned ends that.
func (r *Registry) Collect(f func(*Emitter)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.next
	r.next++
	r.collectors[id] = f
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.collectors, id)
	}
}

// A Kind is what sort of metric a sample is of.
type Kind uint8

// The kinds.
const (
	CounterKind Kind = iota
	GaugeKind
	HistogramKind
)

// A Sample is one series at one moment.
type Sample struct {
	Name         string // as in /stats
	Template     string
	Tags         []Tag
	Kind         Kind
	Value        float64
	Distribution Distribution // of a histogram
}

// Used is false for what has never been counted (/stats?usedonly).
func (s *Sample) Used() bool { return s.Value != 0 || s.Distribution.Count != 0 }

// An Emitter takes what collectors count. Tags are kept, not copied.
type Emitter struct{ samples []Sample }

// Counter emits a counter.
func (e *Emitter) Counter(template string, v float64, tags ...Tag) {
	e.emit(Sample{Template: template, Tags: tags, Kind: CounterKind, Value: v})
}

// Gauge emits a gauge.
func (e *Emitter) Gauge(template string, v float64, tags ...Tag) {
	e.emit(Sample{Template: template, Tags: tags, Kind: GaugeKind, Value: v})
}

// Histogram emits a histogram.
func (e *Emitter) Histogram(template string, d Distribution, tags ...Tag) {
	e.emit(Sample{Template: template, Tags: tags, Kind: HistogramKind, Distribution: d})
}

func (e *Emitter) emit(s Sample) {
	s.Name = textName(s.Template, s.Tags)
	e.samples = append(e.samples, s)
}

// Gather returns all series, sorted by name.
func (r *Registry) Gather() []Sample {
	r.mu.Lock()
	e := &Emitter{samples: make([]Sample, 0, len(r.series))}
	for name, s := range r.series {
		sample := Sample{Name: name, Template: s.template, Tags: s.tags}
		switch m := s.metric.(type) {
		case *Counter:
			sample.Value = float64(m.Value())
		case *Gauge:
			sample.Kind, sample.Value = GaugeKind, float64(m.Value())
		case *Histogram:
			sample.Kind = HistogramKind
			m.AddTo(&sample.Distribution)
		}
		e.samples = append(e.samples, sample)
	}
	collectors := make([]func(*Emitter), 0, len(r.collectors))
	for _, f := range r.collectors {
		collectors = append(collectors, f)
	}
	r.mu.Unlock()
	for _, f := range collectors { // without the lock: they may take their own
		f(e)
	}
	slices.SortFunc(e.samples, func(a, b Sample) int { return strings.Compare(a.Name, b.Name) })
	return e.samples
}
