// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
)

// A question is a request that is put to Envoy and to us.
type question struct {
	method, host, target string
	header               []string // name, value, …
}

func (q question) String() string {
	return fmt.Sprintf("%s %s %s %v", q.method, q.host, q.target, q.header)
}

// echoed are the fields that the origin tells back.
var echoed = []string{"x-envoy-original-path", "x-envoy-original-host", "x-forwarded-host", "x-level", "x-host-only", "x-gone", "x-swap", "x-more", "x-there",
	"x-new", "x-absent", "x-over", "x-pct", "x-none", "x-kept"}

func questions() (out []question) {
	get := func(host, target string, header ...string) { out = append(out, question{"GET", host, target, header}) }
	for _, host := range []string{"shop.example", "SHOP.EXAMPLE:80", "shop.example:", "[::1]", "[::1]:80", "a.example", ".example", "example", "a.api.example",
		"api.example", "a-eu.example", "-eu.example", "www.x", "www.", "www.example", "other.test", "nothing.test"} {
		get(host, "/")
	}
	for _, path := range []string{"/exact", "/exact/", "/exact?a=b", "/exact?", "/exactly", "/Exact", "/fold", "/FOLD?x", "/psp", "/psp/", "/psp/a", "/psp?x", "/pspx", "/psp;x",
		"/re/abc", "/re/abcd", "/re/abc?d", "/re/", "/tpl/1/b/2/3", "/tpl/1/b/", "/tpl/1/b", "/tpl//b/2", "/tpl/1/2/b/3", "/query?a=1&b", "/query?b&a=1", "/query?a=2&b",
		"/query?a=1", "/query?a=2&a=1&b", "/query?a=%31&b", "/query", "/hdr", "/frac", "/grpc", "/two", "/", "//", "/a/../b"} {
		get("h", path)
	}
	for _, h := range [][]string{{"x-a", "1"}, {"X-A", ""}, {"x-b", "v"}, {"x-b", "w"}, {"x-c", "v"}, {"x-c", "w", "x-d", "1"}, {"x-c", "v", "x-n", "7"}, {"x-c", "v", "x-n", "10"}, {"x-c", "v", "x-n", "a"}, {"x-c", "v", "x-n", "-7"}} {
		get("h", "/hdr", h...)
	}
	get("h", "/two", "x-two", "a", "x-two", "b")
	get("h", "/two", "x-two", "a,b")
	get("h", "/two", "x-two", "b", "x-two", "a")
	get("h", "/two", "x-two", "c", "x-two", "a")
	get("h", "/two", "x-two", "d", "x-two", "a")
	get("h", "/grpc", "content-type", "application/grpc+proto")
	for _, host := range []string{"old.test", "old.test:80", "old.test:8080", "[::1]:80"} {
		for _, path := range []string{"/r/host/a?b=c", "/r/https/a?b=c", "/r/port/a", "/r/path/a?b=c", "/r/path", "/r/query/a?b=c", "/r/strip/a?b=c", "/r/prefix/a?b=c", "/r/regex/a/b/c?d"} {
			if host != "[::1]:80" { // an exact host above
				get(host, path)
			}
		}
	}
	get("tls.test", "/a?b=c")
	get("tls.test:80", "/a", "x-forwarded-proto", "http")
	get("tls.test", "/a", "x-forwarded-proto", "https")
	for _, path := range []string{"/w/prefix", "/w/prefix/a?b=c", "/w/prefixed", "/w/psp/a", "/w/psp", "/w/exact?a", "/w/regex/a/b?c=/d", "/w/regex", "/w/regexa", "/w/all/banana?a=a", "/w/host/x",
		"/w/hh", "/w/hp/name?x"} {
		get("h.test", path, "x-new-host", "header.test")
	}
	get("h.test", "/w/host", "x-forwarded-host", "first.test")
	get("h.test", "/w/hh")
	get("h.test", "/ops", "x-gone", "1", "x-swap", "old", "x-more", "1", "x-there", "yes", "x-over", "old", "x-level", "client")
	return append(out, []question{
		{"GET", "h", "/denied", nil}, {"GET", "h", "/denied/x?y", nil}, {"GET", "h", "/t/1/x/2/3", nil}, {"GET", "h", "/t/1/x/", nil}, {"GET", "h", "/t/1/x", nil}, {"GET", "h", "/t/1/2/x/3", nil},
		{"GET", "h", "/", []string{"x-deny", "yes"}}, {"GET", "h", "/", []string{"x-deny", "no"}}, {"GET", "h", "/", []string{"x-deny", "no", "x-deny", "yes"}}, {"GET", "h", "/", []string{"x-deny", "yes", "x-deny", "yes"}},
		{"GET", "h", "/only-get", nil}, {"POST", "h", "/only-get", nil}, {"GET", "h", "/need-user", nil}, {"GET", "h", "/need-user", []string{"x-user", "ann"}}, {"GET", "h", "/need-user", []string{"x-user", "bob"}},
		{"GET", "h", "/not-local", nil}, {"GET", "h", "/port", nil}, {"GET", "h", "/mtls", nil},
	}...)
}

// TestAgreesWithEnvoy puts the same configuration and the same requests to a
// real Envoy, where there is one on the path.
func TestAgreesWithEnvoy(t *testing.T) {
	binary, err := exec.LookPath("envoy")
	if err != nil {
		t.Skip("there is no envoy on the path")
	}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-from-origin", "1")
		var h message.Header
		for _, name := range echoed {
			for _, v := range r.Header.Values(name) {
				h.Add(name, v)
			}
		}
		_, _ = io.WriteString(w, described(r.RequestURI, r.Host, &h))
	}))
	defer origin.Close()
	port, admin := freePort(t), freePort(t)
	raw, err := os.ReadFile("testdata/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, originPort, _ := net.SplitHostPort(origin.Listener.Addr().String())
	yaml := strings.NewReplacer("ADMIN", admin, "PORT", port, "ORIGIN", originPort).Replace(string(raw))
	startEnvoy(t, binary, yaml, port)

	w := newWorld(t)
	snap, err := w.LoadStatic([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	h := snap.Listener("l").Chains[0].HTTP
	n := 0
	for _, q := range questions() {
		want, got := askEnvoy(t, port, q), askUs(t, h, q, port)
		if want != got {
			t.Errorf("%s:\n envoy %s\n we    %s", q, want, got)
		}
		n++
	}
	t.Logf("%d questions", n)
}

func described(target, host string, h *message.Header) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s", target, host)
	for _, name := range echoed {
		if h.Has(name) {
			var values []string
			for _, f := range h.Fields() {
				if message.EqualFold(f.Name, name) {
					values = append(values, f.Value)
				}
			}
			fmt.Fprintf(&b, " %s=%q", name, values)
		}
	}
	return b.String()
}

func freePort(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(int(freeporttest.Addr(t).Port()))
}

func startEnvoy(t *testing.T, binary, yaml, port string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", path, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = log.Close() })
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			out, _ := os.ReadFile(log.Name())
			t.Fatalf("envoy does not listen: %s", out)
		}
	}
}

// askEnvoy sends the request as it is, byte by byte.
func askEnvoy(t *testing.T, port string, q question) string {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n", q.method, q.target, q.host)
	for i := 0; i < len(q.header); i += 2 {
		fmt.Fprintf(conn, "%s: %s\r\n", q.header[i], q.header[i+1])
	}
	fmt.Fprint(conn, "\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if l := resp.Header.Get("location"); l != "" {
		return fmt.Sprintf("%d %s", resp.StatusCode, l)
	}
	if resp.Header.Get("x-from-origin") != "" {
		return "x-from-origin was not removed"
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}

// askUs decides by the same values that l7 does.
func askUs(t *testing.T, h *HTTP, q question, port string) string {
	t.Helper()
	r := &message.Request{Version: message.HTTP11, Method: q.method, Scheme: "http", Authority: q.host, Path: q.target}
	for i := 0; i < len(q.header); i += 2 {
		r.Header.Add(q.header[i], q.header[i+1])
	}
	local := netip.MustParseAddrPort("127.0.0.1:" + port)
	if r.Header.Get("x-forwarded-proto") == "https" {
		r.Scheme = "https"
	}
	table := h.Routes.Load()
	grpc := strings.HasPrefix(r.Header.Get("content-type"), "application/grpc")
	d := table.Match(r, &route.Facts{GRPC: grpc})
	x := &filter.Exchange{Request: r, Facts: authz.Facts{Request: r, DirectRemote: local.Addr(), Remote: local.Addr(), Local: local}}
	var settings []filter.Setting
	if d.Slot >= 0 {
		settings = table.Settings[d.Slot]
	}
	x.Prepare(nil, settings)
	if _, f := h.Chain.Admit(x); f != nil {
		return fmt.Sprintf("%d %s", f.Status, f.Body)
	}
	switch d.Kind {
	case route.ToLocation:
		status, location := d.Location(r)
		return fmt.Sprintf("%d %s", status, location)
	case route.ToClient:
		return fmt.Sprintf("%d %s", d.Route.Direct.Status, d.Route.Direct.Body)
	case route.ToCluster:
		table.Rewrite(&d, r, nil)
		return "200 " + described(r.Path, r.Authority, &r.Header)
	}
	return "404 "
}
