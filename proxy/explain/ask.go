// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// A World is what a proxy decides by at one moment.
type World struct {
	Snapshot *config.Snapshot
	Clusters *upstream.Set
	// Unopened are listeners of Snapshot that do not listen, with the reasons.
	Unopened map[string]error
	// Identity is the SPIFFE ID that the proxy shows as a client; "" if it has none.
	Identity string
	// Lookup returns the addresses of a name as the workload would get them; nil:
	// only URLs with an address are understood.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Demand resolves a destination of an on-demand chain as a connection to it
	// would, waiting for the control plane if need be; nil: there are no such chains.
	Demand func(ctx context.Context, dst netip.AddrPort, host string) (Demanded, error)
}

// Demanded is what an on-demand chain found for a destination: a listener, or a
// route table for HTTP and a cluster for other bytes.
type Demanded struct {
	Name     string               // of the service port, "host:port"; "" if it is none of the mesh
	Listener *config.Listener     // nil unless its chains decide
	Routes   *config.RouteRef     // nil unless the destination carries HTTP
	Cluster  *upstream.Ref        // nil if Routes or Listener decide
	Found    bool                 // false: not of the mesh, the chain's own settings apply
	Service  upstream.ServiceFact // what is called
}

// Ask answers a query in JSON.
func Ask(ctx context.Context, w World, query json.RawMessage) (*Answer, error) {
	var q Query
	dec := json.NewDecoder(bytes.NewReader(query))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		return nil, fmt.Errorf("explain: the query: %w", err)
	}
	return w.Answer(ctx, q)
}

// Answer says what becomes of q. The error is about the query itself.
func (w World) Answer(ctx context.Context, q Query) (*Answer, error) {
	r, err := newRequest(q)
	if err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	if w.Snapshot == nil {
		return nil, errors.New("explain: the proxy has no configuration yet")
	}
	a := &Answer{Side: q.Side, Serial: w.Snapshot.Serial, Steps: []Step{}, identity: w.Identity}
	switch q.Side {
	case Outbound:
		err = w.outbound(ctx, a, r)
	case Inbound:
		err = w.inbound(ctx, a, r)
	default:
		err = fmt.Errorf("side %q: want %q or %q", q.Side, Outbound, Inbound)
	}
	if err != nil {
		return nil, fmt.Errorf("explain: %w", err)
	}
	return a, nil
}

// A request is a Query made ready to be asked about.
type request struct {
	Query
	url     *url.URL // its origin
	path    string
	port    uint16
	dst     netip.AddrPort // where the connection goes; not valid if not given
	random  uint64
	message message.Request
}

// A query is bounded like a request.
const (
	maxURL     = 8 << 10
	maxHeaders = 100
)

func newRequest(q Query) (*request, error) {
	r := &request{Query: q}
	if len(q.URL) > maxURL || len(q.Headers) > maxHeaders {
		return nil, fmt.Errorf("the query is too large: at most %d bytes of URL and %d headers", maxURL, maxHeaders)
	}
	origin, path := split(q.URL)
	u, err := url.Parse(origin)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if i := strings.IndexFunc(path, func(c rune) bool { return c <= ' ' || c == 0x7f }); i >= 0 {
		return nil, fmt.Errorf("url %q: what is no character of a path must be escaped: %q", q.URL, path[i])
	}
	r.url, r.path = u, path
	switch u.Scheme {
	case "http":
		r.port = 80
	case "https":
		r.port = 443
	case "tcp":
	default:
		return nil, fmt.Errorf("url %q: want http://, https:// or tcp://", q.URL)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("url %q names no host", q.URL)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("url %q: %q is no port", q.URL, p)
		}
		r.port = uint16(n)
	}
	if r.port == 0 {
		return nil, fmt.Errorf("url %q names no port", q.URL)
	}
	if q.Address != "" {
		if r.dst, err = netip.ParseAddrPort(q.Address); err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
	}
	r.random = rand.Uint64()
	if q.Random != nil {
		r.random = *q.Random
	}
	r.fill()
	return r, nil
}

// split takes a URL apart into its origin and its path as it is spelled, with the query: proxies look at spellings. A
// fragment is not sent.
func split(s string) (origin, path string) {
	s, _, _ = strings.Cut(s, "#")
	scheme, rest, _ := strings.Cut(s, "://")
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		return s, "/"
	}
	if path = rest[i:]; path[0] == '?' {
		path = "/" + path
	}
	return scheme + "://" + rest[:i], path
}

// fill makes the head as a client would send it.
func (r *request) fill() {
	m := &r.message
	m.Version, m.Method, m.Scheme, m.Authority = message.HTTP11, r.Method, r.url.Scheme, r.url.Host
	if m.Method == "" {
		m.Method = "GET"
	}
	m.Path = r.path
	for _, h := range r.Headers {
		switch {
		case message.EqualFold(h.Name, "host"):
			m.Authority = h.Value
		case message.EqualFold(h.Name, "upgrade"):
			m.Protocol = strings.ToLower(h.Value)
		case message.EqualFold(h.Name, "connection"):
		default:
			m.Header.Add(h.Name, h.Value)
		}
	}
	if m.Method == "CONNECT" {
		m.Path = ""
	}
}

// isHTTP: the mesh sees requests, not bytes.
func (r *request) isHTTP() bool { return r.url.Scheme == "http" }

// facts is what listeners see of the connection.
func (r *request) facts(dst netip.AddrPort) config.ConnFacts {
	f := config.ConnFacts{Local: dst, Transport: "raw_buffer"}
	switch {
	case r.Side == Inbound && r.Caller.TLS:
		f.Transport, f.SNI, f.Protocols = "tls", strings.ToLower(r.Caller.SNI), r.Caller.ALPN
	case r.url.Scheme == "https":
		f.Transport, f.SNI, f.Protocols = "tls", strings.ToLower(r.url.Hostname()), []string{"h2", "http/1.1"}
	case r.isHTTP():
		f.Protocols = []string{"http/1.1"}
	}
	return f
}
