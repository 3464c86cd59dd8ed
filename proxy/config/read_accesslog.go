// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// checkFormat refuses a format that cannot be compiled.
func (b *builder) checkFormat(format string) error {
	_, err := accesslog.Compile(format, b.cfg.Formats)
	return err
}

func (b *builder) accessLogs(list []*accesslogv3.AccessLog) ([]AccessLog, error) {
	var out []AccessLog
	for i, m := range list {
		l, err := b.accessLog(m)
		if err != nil {
			return nil, fmt.Errorf("access_log[%d] %q: %w", i, m.GetName(), err)
		}
		out = append(out, l)
	}
	return out, nil
}

// accessLog is the table of access loggers.
func (b *builder) accessLog(m *accesslogv3.AccessLog) (l AccessLog, err error) {
	if l.Filter, err = logFilter(m.GetFilter()); err != nil {
		return l, fmt.Errorf("filter.%w", err)
	}
	a := m.GetTypedConfig()
	switch strings.TrimPrefix(a.GetTypeUrl(), strict.Prefix+"envoy.extensions.access_loggers.") {
	case "file.v3.FileAccessLog":
		err = b.fileLog(&l, a)
	case "stream.v3.StdoutAccessLog":
		var s streamlogv3.StdoutAccessLog
		if err = strict.Unmarshal(a, &s); err == nil {
			l.Path = "/dev/stdout"
			err = b.format(&l, s.GetLogFormat())
		}
	case "stream.v3.StderrAccessLog":
		var s streamlogv3.StderrAccessLog
		if err = strict.Unmarshal(a, &s); err == nil {
			l.Path = "/dev/stderr"
			err = b.format(&l, s.GetLogFormat())
		}
	default:
		err = fmt.Errorf("type %q is not supported; only files are", a.GetTypeUrl())
	}
	return l, err
}

func (b *builder) fileLog(l *AccessLog, a *anypb.Any) error {
	var m filelogv3.FileAccessLog
	if err := strict.Unmarshal(a, &m); err != nil {
		return err
	}
	l.Path = m.GetPath()
	switch f := m.GetAccessLogFormat().(type) {
	case nil:
		return nil
	case *filelogv3.FileAccessLog_Format:
		l.Text = f.Format
	case *filelogv3.FileAccessLog_JsonFormat:
		l.JSON = f.JsonFormat.AsMap()
	case *filelogv3.FileAccessLog_TypedJsonFormat:
		l.JSON = f.TypedJsonFormat.AsMap()
	case *filelogv3.FileAccessLog_LogFormat:
		return b.format(l, f.LogFormat)
	}
	return b.checkLog(l)
}

func (b *builder) format(l *AccessLog, m *corev3.SubstitutionFormatString) error {
	l.OmitEmpty = m.GetOmitEmptyValues()
	switch f := m.GetFormat().(type) {
	case nil:
	case *corev3.SubstitutionFormatString_TextFormat:
		l.Text = f.TextFormat
	case *corev3.SubstitutionFormatString_JsonFormat:
		l.JSON = f.JsonFormat.AsMap()
	case *corev3.SubstitutionFormatString_TextFormatSource:
		switch s := f.TextFormatSource.GetSpecifier().(type) {
		case *corev3.DataSource_InlineString:
			l.Text = s.InlineString
		case *corev3.DataSource_InlineBytes:
			l.Text = string(s.InlineBytes)
		default:
			return errors.New("log_format.text_format_source: only inline text is supported")
		}
	}
	return b.checkLog(l)
}

func (b *builder) checkLog(l *AccessLog) error {
	opt := b.cfg.Formats
	opt.OmitEmpty = l.OmitEmpty
	var err error
	if l.JSON != nil {
		_, err = accesslog.CompileJSON(l.JSON, opt)
	} else {
		_, err = accesslog.Compile(l.Text, opt)
	}
	if err != nil {
		return fmt.Errorf("log_format: %w", err)
	}
	return nil
}

func logFilter(m *accesslogv3.AccessLogFilter) (*LogFilter, error) {
	if m == nil {
		return nil, nil
	}
	f := &LogFilter{}
	var err error
	switch s := m.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		f.Op = LogStatus
		err = f.compare(s.StatusCodeFilter.GetComparison())
	case *accesslogv3.AccessLogFilter_DurationFilter:
		f.Op = LogDuration
		err = f.compare(s.DurationFilter.GetComparison())
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		f.Op = LogNotHealthCheck
	case *accesslogv3.AccessLogFilter_TraceableFilter:
		f.Op = LogTraceable
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		f.Op = LogFlags
		for _, name := range s.ResponseFlagFilter.GetFlags() {
			one := filter.ParseFlag(name)
			if one == 0 {
				return nil, fmt.Errorf("response_flag_filter: flag %q is not known", name)
			}
			f.Flags |= one
		}
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		f.Op = LogHeader
		f.Header, err = decode.Header(s.HeaderFilter.GetHeader())
	case *accesslogv3.AccessLogFilter_AndFilter:
		f.Op = LogAnd
		err = f.all(s.AndFilter.GetFilters())
	case *accesslogv3.AccessLogFilter_OrFilter:
		f.Op = LogOr
		err = f.all(s.OrFilter.GetFilters())
	default:
		err = errors.New("the filter is missing")
	}
	return f, err
}

func (f *LogFilter) all(list []*accesslogv3.AccessLogFilter) error {
	for i, m := range list {
		one, err := logFilter(m)
		if err != nil {
			return fmt.Errorf("filters[%d].%w", i, err)
		}
		f.Of = append(f.Of, *one)
	}
	return nil
}

func (f *LogFilter) compare(m *accesslogv3.ComparisonFilter) error {
	op, ok := map[accesslogv3.ComparisonFilter_Op]Compare{
		accesslogv3.ComparisonFilter_EQ: Equal, accesslogv3.ComparisonFilter_GE: AtLeast,
		accesslogv3.ComparisonFilter_LE: AtMost, accesslogv3.ComparisonFilter_NE: NotEqual,
	}[m.GetOp()]
	if !ok {
		return fmt.Errorf("comparison.op %s is not known", m.GetOp())
	}
	f.Compare, f.Value = op, m.GetValue().GetDefaultValue()
	return nil
}
