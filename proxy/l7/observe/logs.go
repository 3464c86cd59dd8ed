// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"sync"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// Logs are the access logs of a listener or connection manager, ready for use.
type Logs struct{ logs []accessLog }

type accessLog struct {
	format *accesslog.Format
	filter *config.LogFilter
	writer *accesslog.Writer
}

// NewLogs compiles formats and opens files.
func NewLogs(logs []config.AccessLog, files *accesslog.Files, opt accesslog.Options) (*Logs, error) {
	out := &Logs{}
	for i := range logs {
		l := &logs[i]
		opt.OmitEmpty = l.OmitEmpty
		var format *accesslog.Format
		var err error
		switch {
		case l.JSON != nil:
			format, err = accesslog.CompileJSON(l.JSON, opt)
		case l.Text != "":
			format, err = accesslog.Compile(l.Text, opt)
		default:
			format, err = accesslog.Compile(accesslog.EnvoyText, opt)
		}
		if err != nil {
			return nil, fmt.Errorf("access log %s: %w", l.Path, err)
		}
		w, err := files.Get(l.Path)
		if err != nil {
			return nil, err
		}
		out.logs = append(out.logs, accessLog{format, l.Filter, w})
	}
	return out, nil
}

var lines = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// maxLine bounds the buffers that are kept.
const maxLine = 16 << 10

// Log writes x's line to each log that wants it. record is scratch space.
func (l *Logs) Log(x *filter.Exchange, record *accesslog.Record) { l.LogAs(x, record, "") }

// LogAs is Log before the end; kind is Envoy's access log type.
func (l *Logs) LogAs(x *filter.Exchange, record *accesslog.Record, kind string) {
	if len(l.logs) == 0 {
		return
	}
	x.Record(record)
	record.Type = kind
	line := lines.Get().(*[]byte)
	for i := range l.logs {
		a := &l.logs[i]
		if a.filter != nil && !wanted(a.filter, x, record) {
			continue
		}
		*line = a.format.Append((*line)[:0], record)
		a.writer.Write(*line)
	}
	if cap(*line) <= maxLine {
		lines.Put(line)
	}
}

// wanted says whether an exchange is to be logged.
func wanted(f *config.LogFilter, x *filter.Exchange, r *accesslog.Record) bool {
	switch f.Op {
	case config.LogStatus:
		return compare(f, uint32(r.Status))
	case config.LogDuration:
		return compare(f, uint32(min(r.Duration/time.Millisecond, 1<<31)))
	case config.LogNotHealthCheck:
		return true // health checks are not told apart here
	case config.LogTraceable:
		return x.Trace.Sampled
	case config.LogFlags:
		return f.Flags == 0 && x.Flags != 0 || x.Flags.Has(f.Flags)
	case config.LogHeader:
		return x.Request != nil && f.Header.Match(x.Request)
	case config.LogAnd:
		for i := range f.Of {
			if !wanted(&f.Of[i], x, r) {
				return false
			}
		}
		return true
	case config.LogOr:
		for i := range f.Of {
			if wanted(&f.Of[i], x, r) {
				return true
			}
		}
		return false
	}
	return true
}

func compare(f *config.LogFilter, v uint32) bool {
	switch f.Compare {
	case config.AtLeast:
		return v >= f.Value
	case config.AtMost:
		return v <= f.Value
	case config.NotEqual:
		return v != f.Value
	}
	return v == f.Value
}
