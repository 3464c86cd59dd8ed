// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/meltemi/meltemi/message"
)

// A builder compiles an operator's argument.
type builder func(arg string, has bool, opt *Options) (*operator, error)

// operatorTable lists every operator that is known (Envoy: "access log command
// operators"). FAULT(ALL|SIDE…) is ours.
var operatorTable map[string]builder = buildOperators()

func operators() map[string]builder { return operatorTable }

func buildOperators() map[string]builder {
	t := map[string]builder{}
	for _, add := range []func(map[string]builder){addTimes, addSizes, addRequest, addUpstream, addDownstream, addCertificates, addData} {
		add(t)
	}
	return t
}

type writer = func([]byte, *Record, *operator) ([]byte, bool)

// plain is an operator without argument.
func plain(kind valueKind, w writer) builder {
	return func(arg string, has bool, _ *Options) (*operator, error) {
		if has && arg != "" {
			return nil, fmt.Errorf("takes no argument, but has %q", clip(arg))
		}
		return &operator{write: w, kind: kind}, nil
	}
}

// str is an operator whose value is a string; "" is missing.
func str(get func(*Record) string) builder {
	return plain(textual, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		s := get(r)
		return append(b, s...), s != ""
	})
}

// num is an operator whose value is a number that is never missing.
func num(get func(*Record) uint64) builder {
	return plain(numeric, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		return appendUint(b, get(r)), true
	})
}

// choice is an operator whose argument is one of words; none given is the first.
func choice(kind valueKind, w writer, words ...string) builder {
	return func(arg string, _ bool, _ *Options) (*operator, error) {
		for i, word := range words {
			if arg == word || arg == "" && i == 0 {
				return &operator{write: w, kind: kind, n: i}, nil
			}
		}
		return nil, fmt.Errorf("argument %q is none of %s", clip(arg), strings.Join(words, ", "))
	}
}

func addTimes(t map[string]builder) {
	clock := func(local bool, at func(*Record) time.Time) builder {
		return func(arg string, _ bool, _ *Options) (*operator, error) {
			f, err := compileTime(arg, local)
			if err != nil {
				return nil, err
			}
			return &operator{kind: textual, time: f, write: func(b []byte, r *Record, o *operator) ([]byte, bool) {
				return o.time.append(b, at(r)), true
			}}, nil
		}
	}
	start := func(r *Record) time.Time { return r.Start }
	emit := func(r *Record) time.Time { return r.Start.Add(r.Duration) }
	t["START_TIME"], t["START_TIME_LOCAL"] = clock(false, start), clock(true, start)
	t["EMIT_TIME"], t["EMIT_TIME_LOCAL"] = clock(false, emit), clock(true, emit)
	between := func(from, to int) builder {
		return plain(numeric, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
			return appendBetween(b, r, from, to, time.Millisecond)
		})
	}
	t["DURATION"] = num(func(r *Record) uint64 { return uint64(r.Duration / time.Millisecond) })
	t["REQUEST_DURATION"] = between(fromStart, markRequestEnd)
	t["REQUEST_TX_DURATION"] = between(fromStart, markUpstreamTxEnd)
	t["RESPONSE_DURATION"] = between(fromStart, markUpstreamRxBegin)
	t["RESPONSE_TX_DURATION"] = between(markUpstreamRxBegin, markResponseEnd)
	t["ROUNDTRIP_DURATION"] = between(fromStart, markResponseEnd)
	t["UPSTREAM_CONNECTION_POOL_READY_DURATION"] = between(fromStart, markConnectEnd)
	t["COMMON_DURATION"] = commonDuration
	t["DOWNSTREAM_HANDSHAKE_DURATION"] = plain(numeric, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		return appendUint(b, uint64(r.Handshake/time.Millisecond)), r.Handshake > 0
	})
}

const (
	fromStart = -1
	toEnd     = -2
)

// points are the names of moments in COMMON_DURATION.
var points = map[string]int{
	"DS_RX_BEG": fromStart, "DS_RX_END": markRequestEnd, "US_CX_BEG": markConnectBegin, "US_CX_END": markConnectEnd,
	"US_HS_END": markConnectEnd, "US_TX_BEG": markUpstreamTxBegin, "US_TX_END": markUpstreamTxEnd,
	"US_RX_BEG": markUpstreamRxBegin, "US_RX_END": markUpstreamRxEnd, "DS_TX_BEG": markResponseBegin, "DS_TX_END": markResponseEnd,
}

func commonDuration(arg string, _ bool, _ *Options) (*operator, error) {
	f := strings.Split(arg, ":")
	units := map[string]time.Duration{"ms": time.Millisecond, "us": time.Microsecond, "ns": 1}
	if len(f) == 2 {
		f = append(f, "ms")
	}
	if len(f) != 3 || units[f[2]] == 0 {
		return nil, fmt.Errorf("argument %q is not START:END:ms, us or ns", clip(arg))
	}
	from, ok1 := points[f[0]]
	to, ok2 := points[f[1]]
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("argument %q names a moment that is not known", clip(arg))
	}
	unit := units[f[2]]
	return &operator{kind: numeric, write: func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		return appendBetween(b, r, from, to, unit)
	}}, nil
}

func addSizes(t map[string]builder) {
	t["BYTES_RECEIVED"] = num(func(r *Record) uint64 { return r.Received })
	t["BYTES_SENT"] = num(func(r *Record) uint64 { return r.Sent })
	for i, name := range []string{"DOWNSTREAM_WIRE_BYTES_RECEIVED", "DOWNSTREAM_WIRE_BYTES_SENT", "UPSTREAM_WIRE_BYTES_RECEIVED", "UPSTREAM_WIRE_BYTES_SENT"} {
		t[name] = num(func(r *Record) uint64 { return r.Wire[i] })
	}
	t["REQUEST_HEADERS_BYTES"] = num(func(r *Record) uint64 {
		if r.Request == nil {
			return 0
		}
		return headerBytes(&r.Request.Header) + uint64(len(r.Request.Method)+len(r.Request.Path)+len(r.Request.Authority)+len(r.Request.Scheme))
	})
	t["RESPONSE_HEADERS_BYTES"] = num(func(r *Record) uint64 {
		if r.Response == nil {
			return 0
		}
		return headerBytes(&r.Response.Header)
	})
	t["RESPONSE_TRAILERS_BYTES"] = num(func(r *Record) uint64 { return headerBytes(r.Trailer) })
	t["UPSTREAM_REQUEST_ATTEMPT_COUNT"] = num(func(r *Record) uint64 { return uint64(r.Attempts) })
}

func addRequest(t map[string]builder) {
	addOutcome(t)
	addHeaders(t)
	t["PATH"] = pathOperator
	t["QUERY_PARAM"] = func(arg string, _ bool, _ *Options) (*operator, error) {
		if arg == "" {
			return nil, errors.New("needs the name of a parameter")
		}
		return &operator{a: arg, write: queryParam}, nil
	}
	t["QUERY_PARAMS"] = choice(textual, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		q := query(r)
		return append(b, q...), q != ""
	}, "ORIG")
	t["ROUTE_NAME"] = str(func(r *Record) string { return r.Route })
	t["VIRTUAL_CLUSTER_NAME"] = str(func(*Record) string { return "" })
	t["LOCAL_REPLY_BODY"] = str(func(r *Record) string { return r.LocalBody })
	t["STREAM_ID"] = str(func(r *Record) string { v, _ := requestField(r.Request, "x-request-id"); return v })
	t["TRACE_ID"] = plain(textual, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		if r.Trace == nil || !r.Trace.Valid() {
			return b, false
		}
		return appendHex(b, r.Trace.Trace[:]), true
	})
	t["SPAN_ID"] = plain(textual, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		if r.Trace == nil || !r.Trace.Valid() {
			return b, false
		}
		return appendHex(b, r.Trace.Span[:]), true
	})
	t["ACCESS_LOG_TYPE"] = str(func(r *Record) string {
		if r.Type == "" {
			return "DownstreamEnd"
		}
		return r.Type
	})
	t["FAULT"] = str(func(r *Record) string {
		if r.Fault == nil {
			return ""
		}
		return r.Fault.Error()
	})
}

// addOutcome adds what became of the request.
func addOutcome(t map[string]builder) {
	t["PROTOCOL"] = str(func(r *Record) string {
		if r.Request == nil {
			return ""
		}
		return versionText(r.Request.Version)
	})
	t["RESPONSE_CODE"] = num(func(r *Record) uint64 { return uint64(max(0, r.Status)) })
	t["RESPONSE_CODE_DETAILS"] = choice(textual, details, "", "ALLOW_WHITESPACES")
	t["CONNECTION_TERMINATION_DETAILS"] = str(func(r *Record) string { return r.Close })
	t["RESPONSE_FLAGS"] = plain(textual, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		if r.Flags == nil {
			return append(b, '-'), true
		}
		return r.Flags.Append(b), true
	})
	t["RESPONSE_FLAGS_LONG"] = plain(textual, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		if r.Flags == nil {
			return append(b, '-'), true
		}
		return r.Flags.AppendLong(b), true
	})
	t["GRPC_STATUS"] = choice(textual, grpcStatus, "CAMEL_STRING", "SNAKE_STRING", "NUMBER")
	t["GRPC_STATUS_NUMBER"] = plain(numeric, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		return appendUint(b, uint64(max(0, r.GRPCStatus))), r.GRPCStatus >= 0
	})
}

func addHeaders(t map[string]builder) {
	req := headerOperator(func(r *Record, name string) (string, bool) { return requestField(r.Request, name) })
	resp := headerOperator(func(r *Record, name string) (string, bool) {
		if r.Response == nil {
			return "", false
		}
		if name == ":status" {
			return "", false
		}
		return r.Response.Header.Lookup(name)
	})
	trailer := headerOperator(func(r *Record, name string) (string, bool) {
		if r.Trailer == nil {
			return "", false
		}
		return r.Trailer.Lookup(name)
	})
	t["REQ"], t["REQUEST_HEADER"] = req, req
	t["RESP"], t["RESPONSE_HEADER"] = resp, resp
	t["TRAILER"], t["RESPONSE_TRAILER"] = trailer, trailer
	t["REQ_WITHOUT_QUERY"] = headerOperator(func(r *Record, name string) (string, bool) {
		v, ok := requestField(r.Request, name)
		v, _, _ = strings.Cut(v, "?")
		return v, ok
	})
}

// headerOperator is an operator with the argument X or X?Y: a field, or another.
func headerOperator(get func(r *Record, name string) (string, bool)) builder {
	return func(arg string, _ bool, _ *Options) (*operator, error) {
		first, second, _ := strings.Cut(strings.ToLower(arg), "?")
		if first == "" {
			return nil, errors.New("needs the name of a header")
		}
		return &operator{a: first, b: second, write: func(b []byte, r *Record, o *operator) ([]byte, bool) {
			v, ok := get(r, o.a)
			if !ok && o.b != "" {
				v, ok = get(r, o.b)
			}
			return append(b, v...), ok
		}}, nil
	}
}

func pathOperator(arg string, _ bool, _ *Options) (*operator, error) {
	query, which, _ := strings.Cut(arg, ":")
	o := &operator{a: ":path", write: func(b []byte, r *Record, o *operator) ([]byte, bool) {
		v, ok := requestField(r.Request, o.a)
		if !ok && o.b != "" {
			v, ok = requestField(r.Request, o.b)
		}
		if o.n == 1 {
			v, _, _ = strings.Cut(v, "?")
		}
		return append(b, v...), ok
	}}
	switch query {
	case "", "WQ":
	case "NQ":
		o.n = 1
	default:
		return nil, fmt.Errorf("argument %q does not begin with WQ or NQ", clip(arg))
	}
	switch which {
	case "", "ORIG_OR_PATH":
		o.a, o.b = "x-envoy-original-path", ":path"
	case "ORIG":
		o.a = "x-envoy-original-path"
	case "PATH":
	default:
		return nil, fmt.Errorf("argument %q does not end with ORIG, PATH or ORIG_OR_PATH", clip(arg))
	}
	return o, nil
}

func addUpstream(t map[string]builder) {
	t["UPSTREAM_HOST"] = plain(textual, func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		if r.Upstream.Host != "" {
			return append(b, r.Upstream.Host...), true
		}
		return appendAddr(b, r.Upstream.Remote, whole)
	})
	t["UPSTREAM_HOST_NAME"] = str(func(r *Record) string { return r.Upstream.Name })
	t["UPSTREAM_CLUSTER"] = str(func(r *Record) string {
		if r.Stat != "" {
			return r.Stat
		}
		return r.Cluster
	})
	t["UPSTREAM_CLUSTER_RAW"] = str(func(r *Record) string { return r.Cluster })
	t["UPSTREAM_PROTOCOL"] = str(func(r *Record) string { return versionText(r.Upstream.Version) })
	t["UPSTREAM_TRANSPORT_FAILURE_REASON"] = str(func(r *Record) string { return strings.ReplaceAll(r.Upstream.Failure, " ", "_") })
	addAddress(t, "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_LOCAL_PORT", func(r *Record) netip.AddrPort { return r.Upstream.Local })
	addAddress(t, "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_PORT", func(r *Record) netip.AddrPort { return r.Upstream.Remote })
	addTLS(t, "UPSTREAM", func(r *Record) *tlsState { return r.Upstream.TLS })
}

func addDownstream(t map[string]builder) {
	addAddress(t, "DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_PORT", func(r *Record) netip.AddrPort { return r.Downstream.Remote })
	addAddress(t, "DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_PORT", func(r *Record) netip.AddrPort { return r.Downstream.Local })
	addAddress(t, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_PORT", func(r *Record) netip.AddrPort { return r.Downstream.DirectRemote })
	addAddress(t, "DOWNSTREAM_DIRECT_LOCAL_ADDRESS", "DOWNSTREAM_DIRECT_LOCAL_PORT", func(r *Record) netip.AddrPort { return r.Downstream.DirectLocal })
	t["CONNECTION_ID"] = num(func(r *Record) uint64 { return r.Downstream.ID })
	t["FILTER_CHAIN_NAME"] = str(func(r *Record) string { return r.Downstream.Chain })
	t["DOWNSTREAM_TRANSPORT_FAILURE_REASON"] = str(func(r *Record) string { return r.Downstream.Failure })
	t["REQUESTED_SERVER_NAME"] = func(string, bool, *Options) (*operator, error) {
		return &operator{write: func(b []byte, r *Record, _ *operator) ([]byte, bool) {
			return append(b, r.Downstream.SNI...), r.Downstream.SNI != ""
		}}, nil
	}
	addTLS(t, "DOWNSTREAM", func(r *Record) *tlsState { return r.Downstream.TLS })
}

// addAddress adds NAME, NAME_WITHOUT_PORT and the operators for the port alone.
func addAddress(t map[string]builder, name, port string, get func(*Record) netip.AddrPort) {
	one := func(how addrPart, kind valueKind) builder {
		return func(string, bool, *Options) (*operator, error) {
			return &operator{kind: kind, write: func(b []byte, r *Record, _ *operator) ([]byte, bool) {
				return appendAddr(b, get(r), how)
			}}, nil
		}
	}
	t[name], t[name+"_WITHOUT_PORT"] = one(whole, textual), one(withoutPort, textual)
	t[port], t[name+"_PORT"] = one(portAlone, numeric), one(portAlone, numeric)
}

// requestField returns a field or pseudo field of a request, which may be nil.
func requestField(r *message.Request, name string) (string, bool) {
	if r == nil {
		return "", false
	}
	var v string
	switch name {
	case ":path":
		v = r.Path
	case ":method":
		v = r.Method
	case ":authority", "host":
		v = r.Authority
	case ":scheme":
		v = r.Scheme
	case ":protocol":
		v = r.Protocol
	default:
		return r.Header.Lookup(name)
	}
	return v, v != ""
}
