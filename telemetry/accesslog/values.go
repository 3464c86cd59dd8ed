// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/meltemi/meltemi/message"
)

type tlsState = tls.ConnectionState

func appendUint(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }

func appendHex(b, raw []byte) []byte {
	for _, c := range raw {
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return b
}

func versionText(v message.Version) string {
	if v == 0 {
		return ""
	}
	return v.String()
}

type addrPart uint8

const (
	whole addrPart = iota
	withoutPort
	portAlone
)

func appendAddr(b []byte, a netip.AddrPort, how addrPart) ([]byte, bool) {
	if !a.IsValid() {
		return b, false
	}
	switch how {
	case withoutPort:
		return a.Addr().Unmap().AppendTo(b), true
	case portAlone:
		return appendUint(b, uint64(a.Port())), true
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).AppendTo(b), true
}

func appendBetween(b []byte, r *Record, from, to int, unit time.Duration) ([]byte, bool) {
	end := r.Duration
	if to >= 0 {
		var ok bool
		if end, ok = r.mark(to); !ok {
			return b, false
		}
	}
	begin := time.Duration(0)
	if from >= 0 {
		var ok bool
		if begin, ok = r.mark(from); !ok {
			return b, false
		}
	}
	return appendUint(b, uint64(max(0, end-begin)/unit)), true
}

func headerBytes(h *message.Header) uint64 {
	if h == nil {
		return 0
	}
	n := 0
	for _, f := range h.Fields() {
		n += len(f.Name) + len(f.Value)
	}
	return uint64(n)
}

func details(b []byte, r *Record, o *operator) ([]byte, bool) {
	if r.Details == "" {
		return b, false
	}
	from := len(b)
	b = append(b, r.Details...)
	if o.n == 0 {
		for i := from; i < len(b); i++ {
			if b[i] == ' ' || b[i] == '\t' {
				b[i] = '_'
			}
		}
	}
	return b, true
}

var grpcCamel = [...]string{"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
	"PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal",
	"Unavailable", "DataLoss", "Unauthenticated"}

var grpcSnake = [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL",
	"UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

func grpcStatus(b []byte, r *Record, o *operator) ([]byte, bool) {
	n := r.GRPCStatus
	switch {
	case n < 0:
		return b, false
	case o.n == 2 || n >= len(grpcCamel):
		return appendUint(b, uint64(n)), true
	case o.n == 1:
		return append(b, grpcSnake[n]...), true
	}
	return append(b, grpcCamel[n]...), true
}

func query(r *Record) string {
	if r.Request == nil {
		return ""
	}
	_, q, _ := strings.Cut(r.Request.Path, "?")
	return q
}

func queryParam(b []byte, r *Record, o *operator) ([]byte, bool) {
	rest := query(r)
	for rest != "" {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		if key, value, _ := strings.Cut(pair, "="); key == o.a {
			return append(b, value...), true
		}
	}
	return b, false
}

// addTLS adds what is known of a connection's TLS.
func addTLS(t map[string]builder, side string, get func(*Record) *tlsState) {
	one := func(f func(s *tlsState) string) builder {
		return str(func(r *Record) string {
			if s := get(r); s != nil {
				return f(s)
			}
			return ""
		})
	}
	t[side+"_TLS_VERSION"] = one(func(s *tlsState) string { return strings.ReplaceAll(tls.VersionName(s.Version), "TLS ", "TLSv") })
	t[side+"_TLS_CIPHER"] = one(func(s *tlsState) string { return tls.CipherSuiteName(s.CipherSuite) })
	t[side+"_TLS_GROUP"] = one(func(s *tlsState) string {
		if s.CurveID == 0 {
			return ""
		}
		return s.CurveID.String()
	})
	if side == "UPSTREAM" {
		t["UPSTREAM_SERVER_NAME"] = one(func(s *tlsState) string { return s.ServerName })
	}
}

func leaf(s *tlsState) *x509.Certificate {
	if s == nil || len(s.PeerCertificates) == 0 {
		return nil
	}
	return s.PeerCertificates[0]
}

// addCertificates adds what is known of certificates: drawn out once per
// connection for the client's side, from TLS's state for the upstream's.
func addCertificates(t map[string]builder) {
	cert := func(which func(*Record) *Certificate, f func(c *Certificate) string) builder {
		return str(func(r *Record) string {
			if c := which(r); c != nil {
				return f(c)
			}
			return ""
		})
	}
	peer := func(r *Record) *Certificate { return r.Downstream.Peer }
	own := func(r *Record) *Certificate { return r.Downstream.Own }
	uris := func(c *Certificate) string { return strings.Join(c.URISANs, ",") }
	names := func(c *Certificate) string { return strings.Join(c.DNSSANs, ",") }
	subject := func(c *Certificate) string { return c.Subject }
	t["DOWNSTREAM_PEER_URI_SAN"], t["DOWNSTREAM_LOCAL_URI_SAN"] = cert(peer, uris), cert(own, uris)
	t["DOWNSTREAM_PEER_DNS_SAN"], t["DOWNSTREAM_LOCAL_DNS_SAN"] = cert(peer, names), cert(own, names)
	t["DOWNSTREAM_PEER_SUBJECT"], t["DOWNSTREAM_LOCAL_SUBJECT"] = cert(peer, subject), cert(own, subject)
	t["DOWNSTREAM_PEER_ISSUER"] = cert(peer, func(c *Certificate) string { return c.Issuer })
	t["DOWNSTREAM_PEER_SERIAL"] = cert(peer, func(c *Certificate) string { return c.Serial })
	t["DOWNSTREAM_PEER_FINGERPRINT_256"] = cert(peer, func(c *Certificate) string { return c.SHA256 })
	stamp := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	t["DOWNSTREAM_PEER_CERT_V_START"] = cert(peer, func(c *Certificate) string { return stamp(c.NotBefore) })
	t["DOWNSTREAM_PEER_CERT_V_END"] = cert(peer, func(c *Certificate) string { return stamp(c.NotAfter) })

	up := func(f func(c *x509.Certificate) string) builder {
		return str(func(r *Record) string {
			if c := leaf(r.Upstream.TLS); c != nil {
				return f(c)
			}
			return ""
		})
	}
	t["UPSTREAM_PEER_SUBJECT"] = up(func(c *x509.Certificate) string { return c.Subject.String() })
	t["UPSTREAM_PEER_ISSUER"] = up(func(c *x509.Certificate) string { return c.Issuer.String() })
	t["UPSTREAM_PEER_DNS_SAN"] = up(func(c *x509.Certificate) string { return strings.Join(c.DNSNames, ",") })
	t["UPSTREAM_PEER_URI_SAN"] = up(func(c *x509.Certificate) string {
		var uris []string
		for _, u := range c.URIs {
			uris = append(uris, u.String())
		}
		return strings.Join(uris, ",")
	})
	t["UPSTREAM_PEER_CERT_V_START"] = up(func(c *x509.Certificate) string { return stamp(c.NotBefore) })
	t["UPSTREAM_PEER_CERT_V_END"] = up(func(c *x509.Certificate) string { return stamp(c.NotAfter) })
}

// addData adds what filters left and what the process knows.
func addData(t map[string]builder) {
	t["HOSTNAME"] = func(_ string, _ bool, opt *Options) (*operator, error) {
		return fixed(opt.Hostname), nil
	}
	t["ENVIRONMENT"] = func(arg string, _ bool, opt *Options) (*operator, error) {
		if opt.Environment == nil || arg == "" {
			return nil, errors.New("no variable can be read here")
		}
		return fixed(opt.Environment(arg)), nil
	}
	t["DYNAMIC_METADATA"] = func(arg string, _ bool, _ *Options) (*operator, error) { return metadataOperator(arg) }
	t["METADATA"] = func(arg string, _ bool, _ *Options) (*operator, error) {
		kind, rest, _ := strings.Cut(arg, ":")
		if kind != "DYNAMIC" {
			return nil, fmt.Errorf("only metadata of kind DYNAMIC is kept, not %q", clip(kind))
		}
		return metadataOperator(rest)
	}
	t["FILTER_STATE"] = func(arg string, _ bool, _ *Options) (*operator, error) {
		key, rest, _ := strings.Cut(arg, ":")
		if key == "" {
			return nil, errors.New("needs a key")
		}
		field, _ := strings.CutPrefix(rest, "FIELD:")
		if field == "PLAIN" || field == "TYPED" {
			field = ""
		}
		return &operator{kind: raw, a: key, b: field, write: filterState}, nil
	}
}

func fixed(s string) *operator {
	return &operator{fixed: []byte(s), write: func(b []byte, _ *Record, o *operator) ([]byte, bool) {
		return append(b, o.fixed...), len(o.fixed) > 0
	}}
}

func metadataOperator(arg string) (*operator, error) {
	path := strings.Split(arg, ":")
	if path[0] == "" {
		return nil, errors.New("needs the name of a filter")
	}
	return &operator{kind: raw, write: func(b []byte, r *Record, _ *operator) ([]byte, bool) {
		if r.Metadata == nil {
			return b, false
		}
		m := r.Metadata.Metadata(path[0])
		if m == nil {
			return b, false
		}
		var v any = m
		for _, key := range path[1:] {
			in, ok := v.(map[string]any)
			if !ok {
				return b, false
			}
			if v, ok = in[key]; !ok {
				return b, false
			}
		}
		return appendValue(b, v)
	}}, nil
}

func filterState(b []byte, r *Record, o *operator) ([]byte, bool) {
	if r.State == nil {
		return b, false
	}
	v := r.State(o.a)
	if o.b != "" {
		m, _ := v.(map[string]any)
		v = m[o.b]
	}
	if v == nil {
		return b, false
	}
	return appendValue(b, v)
}

// appendValue appends a value as JSON.
func appendValue(b []byte, v any) ([]byte, bool) {
	text, err := json.Marshal(v)
	if err != nil {
		return b, false
	}
	return append(b, text...), true
}
