// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package bookshop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// passedOn are the headers a service copies from the request it answers to those it makes for it: without them
// traces fall apart and routing by user ends at the first hop.
var passedOn = []string{
	"x-request-id",
	"traceparent", "tracestate", "baggage", // W3C
	"b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", // Zipkin
	"x-ot-span-context", "x-cloud-trace-context", "grpc-trace-bin", "sw8",
	"x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority",
	"end-user", "user-agent", "cookie", "authorization", "jwt",
}

const (
	hopHeader = "Bookshop-Hop"
	maxHops   = 16
	maxBody   = 1 << 20
)

func newClient(proxy *url.URL) *http.Client {
	t := &http.Transport{
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true,
		ExpectContinueTimeout: time.Second,
	}
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
	}
	return &http.Client{Transport: t}
}

// An answer is what another service said.
type answer struct {
	status int
	body   []byte
	hops   []hop
}

// call asks another service on behalf of r. endUser, if any, travels as end-user.
func (s *service) call(r *http.Request, target, base, path, endUser string, timeout time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+path, nil)
	if err != nil {
		return answer{}, err
	}
	for _, name := range passedOn {
		if v := r.Header.Values(name); len(v) > 0 {
			req.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	if endUser != "" {
		req.Header.Set("end-user", endUser)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.results.count(target, 0)
		s.Log.DebugContext(ctx, "call failed", "target", target, "err", err)
		return answer{}, err
	}
	defer resp.Body.Close()
	s.results.count(target, resp.StatusCode)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, body: body}
	for _, v := range resp.Header.Values(hopHeader) {
		if h, ok := parseHop(v); ok && len(a.hops) < maxHops {
			a.hops = append(a.hops, h)
		}
	}
	return a, nil
}

// decode reads a's JSON into v if it is a good answer.
func (a answer) decode(v any) error {
	if a.status != http.StatusOK {
		return fmt.Errorf("status %d", a.status)
	}
	return json.Unmarshal(a.body, v)
}

// A hop is one service's part in an answer.
type hop struct {
	service, version, instance string
	peer                       string // identity its caller proved, "" for none
}

func (h hop) String() string {
	peer := h.peer
	if peer == "" {
		peer = "-"
	}
	return strings.Join([]string{h.service, h.version, h.instance, peer}, " ")
}

func parseHop(s string) (hop, bool) {
	f := strings.Fields(s)
	if len(f) != 4 {
		return hop{}, false
	}
	if f[3] == "-" {
		f[3] = ""
	}
	return hop{f[0], f[1], f[2], f[3]}, true
}

// forwardHops tells our caller who took part in what we were told.
func forwardHops(w http.ResponseWriter, hops []hop) {
	for _, h := range hops {
		w.Header().Add(hopHeader, h.String())
	}
}

// peerOf returns the identity that the proxy in front of us saw: the URI of the last element of
// x-forwarded-client-cert.
func peerOf(r *http.Request) string {
	elements := splitUnquoted(strings.Join(r.Header.Values("x-forwarded-client-cert"), ","), ',')
	for _, field := range splitUnquoted(elements[len(elements)-1], ';') {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(field), "URI="); ok {
			uri = strings.Trim(uri, `"`)
			if !strings.ContainsAny(uri, " \t") {
				return uri
			}
		}
	}
	return ""
}

// splitUnquoted splits s at sep where that is not between quotes.
func splitUnquoted(s string, sep rune) (parts []string) {
	quoted, start := false, 0
	for i, c := range s {
		switch {
		case c == '"':
			quoted = !quoted
		case c == sep && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// results counts how calls ended, for /metrics.
type results struct {
	mu sync.Mutex
	by map[[2]string]int
}

func (r *results) count(target string, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[[2]string]int{}
	}
	r.by[[2]string{target, fmt.Sprint(status)}]++
}
