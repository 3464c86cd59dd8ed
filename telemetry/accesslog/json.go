// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// An object is a compiled JSON object: its fields, sorted by key.
type object struct{ fields []field }

type field struct {
	key string // quoted, with its colon
	val value
}

// A value is one of: a nested object, a list, fixed text, one operator (whose
// type it keeps), or several parts joined into a string.
type value struct {
	object *object
	list   []value
	fixed  string
	op     *operator
	parts  []part
}

// IstioJSON is the tree that Istio configures for accessLogEncoding JSON.
func IstioJSON() map[string]any {
	return map[string]any{
		"start_time": "%START_TIME%", "route_name": "%ROUTE_NAME%", "method": "%REQ(:METHOD)%",
		"path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%",
		"response_flags": "%RESPONSE_FLAGS%", "response_code_details": "%RESPONSE_CODE_DETAILS%",
		"connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%", "bytes_received": "%BYTES_RECEIVED%",
		"bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%", "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
		"x_forwarded_for": "%REQ(X-FORWARDED-FOR)%", "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%",
		"authority": "%REQ(:AUTHORITY)%", "upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
		"upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%", "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
		"downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%", "requested_server_name": "%REQUESTED_SERVER_NAME%",
		"upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
}

// CompileJSON reads a tree of maps, lists, numbers, booleans and format strings,
// as json_format has it. Keys come out sorted; a value that is one operator
// keeps its type, and is null if it is missing.
func CompileJSON(tree map[string]any, opt Options) (*Format, error) {
	o, err := compileObject(tree, &opt, 0)
	if err != nil {
		return nil, err
	}
	return &Format{object: o, omitEmpty: opt.OmitEmpty}, nil
}

const maxDepth = 16

func compileObject(tree map[string]any, opt *Options, depth int) (*object, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("json format: nested deeper than %d", maxDepth)
	}
	o := &object{}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		v, err := compileValue(tree[key], opt, depth)
		if err != nil {
			return nil, fmt.Errorf("json format: field %q: %w", clip(key), err)
		}
		o.fields = append(o.fields, field{key: string(append(appendString(nil, key), ':')), val: v})
	}
	return o, nil
}

func compileValue(v any, opt *Options, depth int) (value, error) {
	switch v := v.(type) {
	case map[string]any:
		o, err := compileObject(v, opt, depth+1)
		return value{object: o}, err
	case []any:
		list := make([]value, 0, len(v))
		for _, e := range v {
			one, err := compileValue(e, opt, depth+1)
			if err != nil {
				return value{}, err
			}
			list = append(list, one)
		}
		return value{list: list}, nil
	case string:
		parts, err := parse(v, opt)
		switch {
		case err != nil:
			return value{}, err
		case len(parts) == 0:
			return value{fixed: `""`}, nil
		case len(parts) == 1 && parts[0].op == nil:
			return value{fixed: string(appendString(nil, parts[0].literal))}, nil
		case len(parts) == 1:
			return value{op: parts[0].op}, nil
		}
		return value{parts: parts}, nil
	case float64:
		return value{fixed: strconv.FormatFloat(v, 'g', -1, 64)}, nil
	case bool:
		return value{fixed: strconv.FormatBool(v)}, nil
	case nil:
		return value{fixed: "null"}, nil
	}
	return value{}, fmt.Errorf("a value of type %T cannot be written", v)
}

func (o *object) append(b []byte, r *Record, omitEmpty bool) []byte {
	b = append(b, '{')
	for i := range o.fields {
		from := len(b)
		if b[from-1] != '{' {
			b = append(b, ',')
		}
		b = append(b, o.fields[i].key...)
		var ok bool
		if b, ok = o.fields[i].val.append(b, r, omitEmpty); !ok {
			if omitEmpty {
				b = b[:from]
			} else {
				b = append(b, "null"...)
			}
		}
	}
	return append(b, '}')
}

func (v *value) append(b []byte, r *Record, omitEmpty bool) ([]byte, bool) {
	switch {
	case v.object != nil:
		return v.object.append(b, r, omitEmpty), true
	case v.list != nil:
		b = append(b, '[')
		for i := range v.list {
			if i > 0 {
				b = append(b, ',')
			}
			var ok bool
			if b, ok = v.list[i].append(b, r, omitEmpty); !ok {
				b = append(b, "null"...)
			}
		}
		return append(b, ']'), true
	case v.op != nil:
		return v.op.appendJSON(b, r)
	case v.parts != nil:
		from := len(b)
		for i := range v.parts {
			if p := &v.parts[i]; p.op == nil {
				b = append(b, p.literal...)
			} else {
				b = p.op.append(b, r, omitEmpty)
			}
		}
		return quote(b, from), true
	}
	return append(b, v.fixed...), true
}

// appendJSON writes the operator's value in its own type.
func (o *operator) appendJSON(b []byte, r *Record) ([]byte, bool) {
	from := len(b)
	b, ok := o.write(b, r, o)
	if !ok {
		return b[:from], false
	}
	if o.kind == numeric || o.kind == raw {
		return b, true
	}
	if o.max > 0 && len(b)-from > o.max {
		b = b[:from+o.max]
	}
	return quote(b, from), true
}

// quote turns b[from:] into a JSON string, in place if nothing needs escaping.
func quote(b []byte, from int) []byte {
	if !needsEscape(b[from:]) {
		b = append(b, 0, 0)
		copy(b[from+1:], b[from:len(b)-2])
		b[from], b[len(b)-1] = '"', '"'
		return b
	}
	text := string(b[from:])
	return appendString(b[:from], text)
}

func needsEscape(s []byte) bool {
	for _, c := range s {
		if c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return true
		}
	}
	return false
}

// appendString appends s as a JSON string; bytes that are no UTF-8 are replaced.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
		i++
	}
	return append(b, '"')
}
