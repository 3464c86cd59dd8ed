// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Formats in wide use.
const (
	// IstioText is what Istio configures if a mesh names no format.
	IstioText = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
		`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
		`%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
		`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% ` +
		`%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"
	// EnvoyText is Envoy's own default.
	EnvoyText = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
		`%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" ` +
		`"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"` + "\n"
)

// Options are what formats may know besides a record.
type Options struct {
	Hostname    string              // of %HOSTNAME%
	Environment func(string) string // of %ENVIRONMENT(X)%; nil refuses it
	// OmitEmpty writes nothing for missing values, instead of "-"; in JSON it
	// leaves their fields out (omit_empty_values).
	OmitEmpty bool
}

// A Format turns records into text.
type Format struct {
	parts     []part
	object    *object // JSON; then parts is empty
	omitEmpty bool
}

// A part is literal text, or an operator.
type part struct {
	literal string
	op      *operator
}

// An operator is one %COMMAND(argument):max%, compiled.
type operator struct {
	// write appends the value, or returns false if there is none.
	write func(b []byte, r *Record, o *operator) ([]byte, bool)
	kind  valueKind
	a, b  string // its arguments
	n     int
	max   int // bytes; 0: all
	fixed []byte
	time  *timeFormat
}

type valueKind uint8

const (
	textual valueKind = iota // text that peers may choose
	numeric                  // a number in JSON
	raw                      // JSON already
)

// Compile reads a format string. An operator that is not known, or that has a
// bad argument, is an error that names it.
func Compile(format string, opt Options) (*Format, error) {
	parts, err := parse(format, &opt)
	if err != nil {
		return nil, err
	}
	return &Format{parts: parts, omitEmpty: opt.OmitEmpty}, nil
}

// Literal returns the text of a format without operators, and whether it is one.
func (f *Format) Literal() (string, bool) {
	switch {
	case f.object != nil:
		return "", false
	case len(f.parts) == 0:
		return "", true
	case len(f.parts) == 1 && f.parts[0].op == nil:
		return f.parts[0].literal, true
	}
	return "", false
}

// Append appends r's line.
func (f *Format) Append(b []byte, r *Record) []byte {
	if f.object != nil {
		b = f.object.append(b, r, f.omitEmpty)
		return append(b, '\n')
	}
	for i := range f.parts {
		p := &f.parts[i]
		if p.op == nil {
			b = append(b, p.literal...)
			continue
		}
		b = p.op.append(b, r, f.omitEmpty)
	}
	return b
}

// append writes the operator's value as text, on one line.
func (o *operator) append(b []byte, r *Record, omitEmpty bool) []byte {
	from := len(b)
	b, ok := o.write(b, r, o)
	if !ok {
		if b = b[:from]; omitEmpty {
			return b
		}
		return append(b, '-')
	}
	if o.kind == raw && len(b) > from && b[from] == '"' {
		b = unquote(b, from)
	}
	if o.max > 0 && len(b)-from > o.max {
		b = b[:from+o.max]
	}
	if o.kind != numeric {
		return printable(b, from)
	}
	return b
}

// unquote turns the JSON string b[from:] into its text.
func unquote(b []byte, from int) []byte {
	var s string
	if err := json.Unmarshal(b[from:], &s); err != nil {
		return b
	}
	return append(b[:from], s...)
}

// printable replaces control characters from b[from:] on.
func printable(b []byte, from int) []byte {
	for i := from; i < len(b); i++ {
		if c := b[i]; c < ' ' || c == 0x7f {
			rest := string(b[i:])
			b = b[:i]
			for j := 0; j < len(rest); j++ {
				if c := rest[j]; c < ' ' || c == 0x7f {
					b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
				} else {
					b = append(b, c)
				}
			}
			return b
		}
	}
	return b
}

const hexDigits = "0123456789abcdef"

// parse splits a format at its operators. "%%" is a percent sign.
func parse(format string, opt *Options) ([]part, error) {
	var parts []part
	var lit strings.Builder
	for i := 0; i < len(format); {
		if format[i] != '%' {
			lit.WriteByte(format[i])
			i++
			continue
		}
		if strings.HasPrefix(format[i:], "%%") {
			lit.WriteByte('%')
			i += 2
			continue
		}
		op, n, err := parseOperator(format[i:], opt)
		if err != nil {
			return nil, err
		}
		i += n
		if lit.Len() > 0 {
			parts = append(parts, part{literal: lit.String()})
			lit.Reset()
		}
		parts = append(parts, part{op: op})
	}
	if lit.Len() > 0 {
		parts = append(parts, part{literal: lit.String()})
	}
	return parts, nil
}

// parseOperator reads %NAME%, %NAME(argument)% or either with ":max", at the
// beginning of s. It returns how long that is.
func parseOperator(s string, opt *Options) (*operator, int, error) {
	i := 1
	for i < len(s) && (s[i] >= 'A' && s[i] <= 'Z' || s[i] >= '0' && s[i] <= '9' || s[i] == '_') {
		i++
	}
	name, arg, hasArg := s[1:i], "", false
	if i < len(s) && s[i] == '(' {
		end := strings.IndexByte(s[i:], ')')
		if end < 0 {
			return nil, 0, fmt.Errorf("format: %%%s( is not closed", name)
		}
		arg, hasArg = s[i+1:i+end], true
		i += end + 1
	}
	limit := 0
	if i < len(s) && s[i] == ':' {
		j := i + 1
		for j < len(s) && s[j] >= '0' && s[j] <= '9' {
			j++
		}
		n, err := strconv.Atoi(s[i+1 : j])
		if err != nil {
			return nil, 0, fmt.Errorf("format: %%%s: has no length after its colon", name)
		}
		limit, i = n, j
	}
	if name == "" || i >= len(s) || s[i] != '%' {
		return nil, 0, fmt.Errorf("format: %q is no operator: write %%NAME%%, %%NAME(ARGUMENT)%%, or %%%% for a percent sign", clip(s))
	}
	build, ok := operators()[name]
	if !ok {
		return nil, 0, fmt.Errorf("format: operator %%%s%% is not known", name)
	}
	op, err := build(arg, hasArg, opt)
	if err != nil {
		return nil, 0, fmt.Errorf("format: operator %%%s%%: %w", name, err)
	}
	op.max = limit
	return op, i + 1, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
