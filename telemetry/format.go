// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"bufio"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// PrometheusType is the content type of WritePrometheus.
const PrometheusType = "text/plain; version=0.0.4; charset=utf-8"

// WriteText writes samples as Envoy's /stats does: "name: value" lines.
func WriteText(w io.Writer, samples []Sample) error {
	b := bufio.NewWriter(w)
	for i := range samples {
		s := &samples[i]
		b.WriteString(oneLine(s.Name))
		b.WriteString(": ")
		if s.Kind == HistogramKind {
			writeQuantiles(b, &s.Distribution)
		} else {
			b.WriteString(number(s.Value))
		}
		b.WriteByte('\n')
	}
	return b.Flush()
}

// oneLine keeps a name that holds a line break (from a hostile host name) from
// looking like two.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\r\n") {
		return s
	}
	return strings.NewReplacer("\r", "_", "\n", "_").Replace(s)
}

func writeQuantiles(b *bufio.Writer, d *Distribution) {
	if d.Count == 0 {
		b.WriteString("No recorded values")
		return
	}
	for i, q := range []float64{0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1} {
		if i > 0 {
			b.WriteByte(' ')
		}
		v := strconv.FormatFloat(d.Quantile(q), 'g', 6, 64)
		b.WriteString("P" + strconv.FormatFloat(q*100, 'g', 4, 64) + "(nan," + v + ")")
	}
}

// WriteJSON writes samples as Envoy's /stats?format=json does; histograms are
// written as count and sum.
func WriteJSON(w io.Writer, samples []Sample) error {
	type stat struct {
		Name  string   `json:"name"`
		Value *float64 `json:"value,omitempty"`
		Count *uint64  `json:"count,omitempty"`
		Sum   *float64 `json:"sum,omitempty"`
	}
	out := struct {
		Stats []stat `json:"stats"`
	}{Stats: make([]stat, 0, len(samples))}
	for i := range samples {
		s := &samples[i]
		if s.Kind == HistogramKind {
			out.Stats = append(out.Stats, stat{Name: s.Name, Count: &s.Distribution.Count, Sum: &s.Distribution.Sum})
		} else {
			out.Stats = append(out.Stats, stat{Name: s.Name, Value: &s.Value})
		}
	}
	return json.NewEncoder(w).Encode(out)
}

// WritePrometheus writes samples in Prometheus' text format 0.0.4.
func WritePrometheus(w io.Writer, samples []Sample) error {
	type line struct {
		name string
		*Sample
	}
	lines := make([]line, 0, len(samples))
	names := map[string]string{} // by template: most series share one
	for i := range samples {
		t := samples[i].Template
		name, ok := names[t]
		if !ok {
			name = promName(t)
			names[t] = name
		}
		lines = append(lines, line{name, &samples[i]})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
	b := bufio.NewWriter(w)
	for i, l := range lines {
		if i == 0 || lines[i-1].name != l.name {
			b.WriteString("# TYPE " + l.name + " " + [...]string{"counter", "gauge", "histogram"}[l.Kind] + "\n")
		}
		if l.Kind == HistogramKind {
			writeHistogram(b, l.name, l.Sample)
			continue
		}
		b.WriteString(l.name)
		writeLabels(b, l.Tags, "")
		b.WriteByte(' ')
		b.WriteString(number(l.Value))
		b.WriteByte('\n')
	}
	return b.Flush()
}

func writeHistogram(b *bufio.Writer, name string, s *Sample) {
	seen := uint64(0)
	for i, n := range s.Distribution.Counts {
		seen += n
		bound := "+Inf"
		if i < len(s.Distribution.Bounds) {
			bound = number(s.Distribution.Bounds[i])
		}
		b.WriteString(name + "_bucket")
		writeLabels(b, s.Tags, bound)
		b.WriteString(" " + strconv.FormatUint(seen, 10) + "\n")
	}
	b.WriteString(name + "_sum")
	writeLabels(b, s.Tags, "")
	b.WriteString(" " + number(s.Distribution.Sum) + "\n" + name + "_count")
	writeLabels(b, s.Tags, "")
	b.WriteString(" " + strconv.FormatUint(seen, 10) + "\n")
}

func writeLabels(b *bufio.Writer, tags []Tag, le string) {
	if len(tags) == 0 && le == "" {
		b.WriteString("{}")
		return
	}
	b.WriteByte('{')
	for i, t := range tags {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(labelName(t.Key))
		b.WriteString(`="`)
		writeLabelValue(b, t.Value)
		b.WriteByte('"')
	}
	if le != "" {
		if len(tags) > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`le="` + le + `"`)
	}
	b.WriteByte('}')
}

// writeLabelValue escapes what the format asks for; bytes that are no UTF-8 are
// replaced, because a scraper would refuse the whole page.
func writeLabelValue(b *bufio.Writer, s string) {
	for _, r := range s {
		switch r {
		case '\\':
			b.WriteString(`\\`)
		case '"':
			b.WriteString(`\"`)
		case '\n':
			b.WriteString(`\n`)
		default:
			b.WriteRune(r)
		}
	}
}

func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
