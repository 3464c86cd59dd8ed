// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package bookshop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// shop is all services over real sockets, with reviews of one version.
type shop struct {
	*testing.T
	page *httptest.Server

	mu   sync.Mutex
	seen map[string][]http.Header // by service
	// before, if set, runs before a service answers; it may answer itself and say so.
	before func(service string, w http.ResponseWriter, r *http.Request) (answered bool)
}

func open(t *testing.T, reviews string, change func(*Config)) *shop {
	s := &shop{T: t, seen: map[string][]http.Header{}}
	cfg := Defaults()
	cfg.Ratings = s.serve(Ratings, "v1", cfg).URL
	cfg.Details = s.serve(Details, "v1", cfg).URL
	if change != nil {
		change(&cfg)
	}
	cfg.Reviews = s.serve(Reviews, reviews, cfg).URL
	s.page = s.serve(ProductPage, "v1", cfg)
	return s
}

func (s *shop) serve(name, version string, cfg Config) *httptest.Server {
	s.Helper()
	h, err := Handler(name, version, cfg)
	if err != nil {
		s.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen[name] = append(s.seen[name], r.Header.Clone())
		before := s.before
		s.mu.Unlock()
		if before != nil && before(name, w, r) {
			return
		}
		h.ServeHTTP(w, r)
	}))
	s.Cleanup(srv.Close)
	return srv
}

func (s *shop) intercept(f func(service string, w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

func (s *shop) calls(service string) []http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[service]
}

// get asks productpage.
func (s *shop) get(path string, header ...string) (int, string, http.Header) {
	s.Helper()
	return s.do(http.DefaultClient, http.MethodGet, path, header...)
}

func (s *shop) do(c *http.Client, method, path string, header ...string) (int, string, http.Header) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.page.URL+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func (s *shop) want(page string, parts ...string) {
	s.Helper()
	for _, p := range parts {
		if !strings.Contains(page, p) {
			s.Errorf("the page lacks %q", p)
		}
	}
}

func (s *shop) lacks(page string, parts ...string) {
	s.Helper()
	for _, p := range parts {
		if strings.Contains(page, p) {
			s.Errorf("the page has %q", p)
		}
	}
}

func TestPageByVersion(t *testing.T) {
	for version, c := range map[string]struct{ has, not []string }{
		"v1": {nil, []string{"★"}},
		"v2": {[]string{"stars black", "★★★★★", "★★★★☆"}, []string{"stars red"}},
		"v3": {[]string{"stars red", "★★★★★", "★★★★☆"}, []string{"stars black"}},
	} {
		t.Run(version, func(t *testing.T) {
			s := open(t, version, nil)
			code, page, head := s.get("/productpage")
			if code != 200 {
				t.Fatal(code)
			}
			s.want(page, "<title>Simple Bookstore App</title>", "William Shakespeare", "Reviewer1", "Reviewer2", "reviews "+version)
			s.want(page, c.has...)
			s.lacks(page, append(c.not, "Error fetching", "unavailable")...)
			if got, want := len(head.Values(hopHeader)), map[bool]int{true: 3, false: 4}[version == "v1"]; got != want {
				t.Errorf("%d hops, want %d: %v", got, want, head.Values(hopHeader))
			}
		})
	}
}

func TestShapesOfJSON(t *testing.T) {
	s := open(t, "v3", nil)
	for path, want := range map[string]string{
		"/api/v1/products/0":         `{"id":0,"author":"William Shakespeare","year":1595,"type":"paperback","pages":200,"publisher":"PublisherA","language":"English","ISBN-10":"1234567890","ISBN-13":"123-1234567890"}`,
		"/api/v1/products/0/ratings": `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`,
	} {
		if code, body, _ := s.get(path); code != 200 || strings.TrimSpace(body) != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	_, body, _ := s.get("/api/v1/products/0/reviews")
	var r map[string]any
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%v %v %v", r["id"], r["podname"], r["clustername"]) != "0 reviews-v3 null" {
		t.Errorf("%v", r)
	}
	first := r["reviews"].([]any)[0].(map[string]any)
	if first["reviewer"] != "Reviewer1" || fmt.Sprint(first["rating"]) != "map[color:red stars:5]" {
		t.Errorf("%v", first)
	}
	_, body, _ = s.get("/api/v1/products")
	var ps []product
	if err := json.Unmarshal([]byte(body), &ps); err != nil || len(ps) != 1 || ps[0].Title != "The Comedy of Errors" {
		t.Errorf("%s", body)
	}
	if code, body, _ := s.get("/api/v1/products/x/reviews"); code != 400 || !strings.Contains(body, "numeric product ID") {
		t.Errorf("%d %s", code, body)
	}
}

func TestHealth(t *testing.T) {
	for name, want := range map[string]string{
		ProductPage: "Product page is healthy",
		Details:     `{"status":"Details is healthy"}`,
		Reviews:     `{"status":"Reviews is healthy"}`,
		Ratings:     `{"status":"Ratings is healthy"}`,
	} {
		h, err := Handler(name, "v1", Defaults())
		if err != nil {
			t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/health", nil))
		if rec.Code != 200 || strings.TrimSpace(rec.Body.String()) != want {
			t.Errorf("%s: %d %s", name, rec.Code, rec.Body)
		}
	}
}

func TestSignedInUserTravels(t *testing.T) {
	s := open(t, "v2", nil)
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar}
	resp, err := c.PostForm(s.page.URL+"/login", url.Values{"username": {"jason"}, "passwd": {""}})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	s.want(string(b), "jason", "sign out")
	for _, service := range []string{Details, Reviews, Ratings} {
		calls := s.calls(service)
		if got := calls[len(calls)-1].Get("end-user"); got != "jason" {
			t.Errorf("%s saw end-user %q", service, got)
		}
	}
	_, page, _ := s.do(c, "GET", "/logout")
	s.lacks(page, "sign out")
	if calls := s.calls(Reviews); calls[len(calls)-1].Get("end-user") != "" {
		t.Error("still signed in")
	}
}

func TestUserCannotForgeHeaders(t *testing.T) {
	for in, want := range map[string]string{
		"jason": "jason", " a\r\nx-evil: 1 ": "ax-evil: 1", "ünï": "n", strings.Repeat("x", 99): strings.Repeat("x", 64), "\x00": "",
	} {
		if got := cleanUser(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

func TestTraceHeadersTravel(t *testing.T) {
	s := open(t, "v3", nil)
	sent := []string{
		"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate", "a=b", "baggage", "k=v",
		"b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", "x-b3-traceid", "80f198ee56343ba8", "x-b3-spanid", "e457b5a2e4d86bd1",
		"x-b3-parentspanid", "05e3ac9a4f6e3b90", "x-b3-sampled", "1", "x-b3-flags", "0",
		"x-request-id", "42", "x-ot-span-context", "x", "user-agent", "tester", "authorization", "Bearer t", "cookie", "a=1",
	}
	s.get("/productpage", append(sent, "x-secret", "stays")...)
	for _, service := range []string{Details, Reviews, Ratings} {
		h := s.calls(service)[0]
		for i := 0; i < len(sent); i += 2 {
			if h.Get(sent[i]) != sent[i+1] {
				t.Errorf("%s saw %s %q", service, sent[i], h.Get(sent[i]))
			}
		}
		if h.Get("x-secret") != "" {
			t.Errorf("%s saw a header that is none of its business", service)
		}
	}
}

func TestSlowRatingsMakeReviewsUnavailable(t *testing.T) {
	s := open(t, "v2", func(c *Config) {
		// Bookinfo's 3, 3 and 10 seconds against a delay of 7, in hundredths.
		c.ReviewsTimeout, c.BlackTimeout = 30*time.Millisecond, time.Minute
	})
	release := make(chan struct{})
	s.intercept(func(service string, _ http.ResponseWriter, r *http.Request) bool {
		if service == Ratings {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return false
	})
	defer close(release)
	code, page, _ := s.get("/productpage")
	if code != 200 {
		t.Error(code)
	}
	s.want(page, "Error fetching product reviews!", "Sorry, product reviews are currently unavailable for this book.", "William Shakespeare")
	if n := len(s.calls(Reviews)); n != 2 {
		t.Errorf("reviews was called %d times, want one retry", n)
	}
	if code, body, _ := s.get("/api/v1/products/0/reviews"); code != 500 || !strings.Contains(body, "Sorry, product reviews") {
		t.Errorf("%d %s", code, body)
	}
}

func TestFailedRatingsLeaveReviews(t *testing.T) {
	s := open(t, "v2", nil)
	s.intercept(func(service string, w http.ResponseWriter, _ *http.Request) bool {
		if service == Ratings {
			w.WriteHeader(500)
		}
		return service == Ratings
	})
	_, page, _ := s.get("/productpage")
	s.want(page, "Ratings service is currently unavailable", "Reviewer1")
	s.lacks(page, "Error fetching")
}

func TestFailedDetailsLeaveThePage(t *testing.T) {
	s := open(t, "v1", nil)
	for name, f := range map[string]func(w http.ResponseWriter){
		"status":  func(w http.ResponseWriter) { w.WriteHeader(403) },
		"garbage": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "RBAC") },
		"shape":   func(w http.ResponseWriter) { _, _ = io.WriteString(w, "[1]") },
	} {
		s.intercept(func(service string, w http.ResponseWriter, _ *http.Request) bool {
			if service == Details {
				f(w)
			}
			return service == Details
		})
		code, page, _ := s.get("/productpage")
		if code != 200 || !strings.Contains(page, "Error fetching product details!") || !strings.Contains(page, "Reviewer1") {
			t.Errorf("%s: %d", name, code)
		}
	}
	s.intercept(func(service string, w http.ResponseWriter, _ *http.Request) bool {
		if service == Details {
			w.WriteHeader(403)
		}
		return service == Details
	})
	if code, _, _ := s.get("/api/v1/products/0"); code != 403 {
		t.Errorf("the status of details became %d", code)
	}
	if _, m, _ := s.get("/metrics"); !strings.Contains(m, `request_result_total{destination_app="details",response_code="403"} 2`) {
		t.Errorf("metrics: %s", m)
	}
}

func TestPageShowsMutualTLS(t *testing.T) {
	s := open(t, "v1", nil)
	_, page, _ := s.get("/productpage")
	s.want(page, "no client certificate")
	s.lacks(page, "mutual TLS")
	_, page, _ = s.get("/productpage", "x-forwarded-client-cert", `By=spiffe://cluster.local/ns/default/sa/bookinfo-productpage;Hash=ab;Subject="CN=a,O=b;c";URI=spiffe://cluster.local/ns/istio-system/sa/gateway`)
	s.want(page, "mutual TLS · spiffe://cluster.local/ns/istio-system/sa/gateway")
}

func TestPeerOf(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"URI=spiffe://a/b":                "spiffe://a/b",
		`Hash=x;URI="spiffe://a,b;c/d"`:   "spiffe://a,b;c/d",
		"URI=spiffe://far,By=x;Hash=y":    "", // the nearest had none
		"URI=spiffe://far,URI=spiffe://n": "spiffe://n",
		`Subject="URI=fake;URI=fake"`:     "",
		"URI=a b":                         "",
		`"`:                               "",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Forwarded-Client-Cert", in)
		if got := peerOf(r); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestExplicitProxy(t *testing.T) {
	var mu sync.Mutex
	var through []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		through = append(through, r.URL.String())
		mu.Unlock()
		_, _ = io.WriteString(w, `{"id":0}`)
	}))
	defer proxy.Close()
	cfg := Defaults()
	cfg.Proxy, _ = url.Parse(proxy.URL)
	h, err := Handler(ProductPage, "v1", cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/productpage", nil))
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(through, " "); got != "http://details:9080/details/0 http://reviews:9080/reviews/0" {
		t.Errorf("asked the proxy for %s", got)
	}
}

func TestPostedRatings(t *testing.T) {
	h, _ := Handler(Ratings, "v1", Defaults())
	do := func(method, path, body string) (int, string) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
		return rec.Code, strings.TrimSpace(rec.Body.String())
	}
	if code, _ := do("POST", "/ratings/7", `{"me":3}`); code != 200 {
		t.Error(code)
	}
	if _, body := do("GET", "/ratings/7", ""); body != `{"id":7,"ratings":{"me":3}}` {
		t.Error(body)
	}
	for path, body := range map[string]string{"/ratings/x": "{}", "/ratings/1": "no"} {
		if code, _ := do("POST", path, body); code != 400 {
			t.Errorf("%s: %d", path, code)
		}
	}
}

func TestHandlerRefuses(t *testing.T) {
	bad := Defaults()
	bad.Reviews = "reviews"
	for name, f := range map[string]func() error{
		"service": func() error { _, err := Handler("basket", "v1", Defaults()); return err },
		"version": func() error { _, err := Handler(Details, "v9", Defaults()); return err },
		"url":     func() error { _, err := Handler(ProductPage, "v1", bad); return err },
	} {
		if f() == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

func TestRun(t *testing.T) {
	cfg := Defaults()
	cfg.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, Details, "v1", cfg); err != nil && !strings.Contains(err.Error(), "canceled") {
		t.Error(err)
	}
}

func TestConfigurationIsWellFormed(t *testing.T) {
	kinds := map[string]int{}
	err := fs.WalkDir(Configuration(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := Configuration().Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for dec := yaml.NewDecoder(f); ; {
			var o struct {
				Kind     string
				Metadata struct{ Name, Namespace string }
			}
			if err := dec.Decode(&o); err == io.EOF {
				return nil
			} else if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if o.Kind == "" || o.Metadata.Name == "" || o.Metadata.Namespace == "" {
				t.Errorf("%s: incomplete: %+v", path, o)
			}
			kinds[o.Kind]++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, n := range map[string]int{"Service": 4, "Gateway": 1, "VirtualService": 3, "DestinationRule": 4, "PeerAuthentication": 1, "AuthorizationPolicy": 1} {
		if kinds[kind] != n {
			t.Errorf("%d %s, want %d", kinds[kind], kind, n)
		}
	}
}

func TestWorkloads(t *testing.T) {
	var names []string
	for _, w := range Workloads() {
		if _, err := Handler(w.Service, w.Version, Defaults()); err != nil {
			t.Error(err)
		}
		names = append(names, w.Name())
	}
	if got := strings.Join(names, " "); got != "ratings-v1 details-v1 reviews-v1 reviews-v2 reviews-v3 productpage-v1" {
		t.Error(got)
	}
}
