// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/telemetry/trace"
)

type names string

func (n names) Append(b []byte) []byte     { return append(b, n...) }
func (n names) AppendLong(b []byte) []byte { return append(append(b, "Long"...), n...) }

type metadata map[string]map[string]any

func (m metadata) Metadata(f string) map[string]any { return m[f] }

func sample() *Record {
	req := &message.Request{Version: message.HTTP11, Method: "GET", Scheme: "http", Authority: "shop.example:8080", Path: "/cart?user=7&x"}
	req.Header.Add("User-Agent", "curl/8")
	req.Header.Add("X-Request-Id", "0b6f")
	resp := &message.Response{Status: 200}
	resp.Header.Add("x-envoy-upstream-service-time", "3")
	return &Record{
		Request: req, Response: resp, Start: time.Date(2024, 2, 29, 13, 4, 5, 6_700_000, time.UTC), Duration: 12 * time.Millisecond,
		Marks:  &[9]Mark{markUpstreamRxBegin: 5 * time.Millisecond, markResponseEnd: 11 * time.Millisecond},
		Status: 200, GRPCStatus: 5, Flags: names("-"), Details: "via upstream", Received: 10, Sent: 2000, Attempts: 2,
		Route: "default", Cluster: "outbound|80||b", Stat: "outbound|80||b;", Metadata: metadata{"f": {"k": "v", "n": map[string]any{"x": 1.5}}},
		Trace:    &trace.Context{Trace: trace.TraceID{1}, Span: trace.SpanID{2}},
		Upstream: Upstream{Remote: netip.MustParseAddrPort("10.0.0.2:80"), Local: netip.MustParseAddrPort("10.0.0.1:4000"), Version: message.HTTP2},
		Downstream: Downstream{ID: 9, Remote: netip.MustParseAddrPort("[::ffff:10.0.0.9]:1234"), Local: netip.MustParseAddrPort("10.0.0.1:80"),
			Peer: &Certificate{URISANs: []string{"spiffe://td/ns/a/sa/b"}}},
	}
}

func TestIstioText(t *testing.T) {
	f, err := Compile(IstioText, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `[2024-02-29T13:04:05.006Z] "GET /cart?user=7&x HTTP/1.1" 200 - via_upstream - "-" 10 2000 12 3 "-" "curl/8" "0b6f" ` +
		`"shop.example:8080" "10.0.0.2:80" outbound|80||b 10.0.0.1:4000 10.0.0.1:80 10.0.0.9:1234 - default` + "\n"
	if got := string(f.Append(nil, sample())); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	// A connection without HTTP: nothing is there, nothing breaks.
	if got := string(f.Append(nil, &Record{GRPCStatus: -1})); !strings.HasSuffix(got, "\n") {
		t.Errorf("empty record: %q", got)
	}
}

func TestOperators(t *testing.T) {
	opt := Options{Hostname: "pod-1", Environment: func(k string) string { return "env " + k }}
	for format, want := range map[string]string{
		"%%%PROTOCOL%%%": "%HTTP/1.1%",
		"%START_TIME(%Y/%m/%dT%H:%M:%S.%3f%z %s)%":   "2024/02/29T13:04:05.006+0000 1709211845",
		"%START_TIME(%s%%%6f)%":                      "1709211845%006700",
		"%REQ(X-MISSING?USER-AGENT):4%":              "curl",
		"%REQ(x-missing)%":                           "-",
		"%REQ_WITHOUT_QUERY(:PATH)%":                 "/cart",
		"%PATH(NQ:PATH)%":                            "/cart",
		"%QUERY_PARAM(user)%":                        "7",
		"%QUERY_PARAMS(ORIG)%":                       "user=7&x",
		"%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%": "via upstream",
		"%RESPONSE_FLAGS_LONG%":                      "Long-",
		"%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS_NUMBER%":            "NotFound NOT_FOUND 5",
		"%RESPONSE_DURATION% %RESPONSE_TX_DURATION% %REQUEST_DURATION%":             "5 6 -",
		"%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)%":                                 "5000",
		"%UPSTREAM_CLUSTER% %UPSTREAM_PROTOCOL% %UPSTREAM_REMOTE_ADDRESS_PORT%":     "outbound|80||b; HTTP/2 80",
		"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %CONNECTION_ID%":                  "10.0.0.9 9",
		"%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN%":                      "spiffe://td/ns/a/sa/b -",
		"%DYNAMIC_METADATA(f:k)% %DYNAMIC_METADATA(f:n)% %METADATA(DYNAMIC:f:n:x)%": `v {"x":1.5} 1.5`,
		"%DYNAMIC_METADATA(f:none)% %DYNAMIC_METADATA(g)%":                          "- -",
		"%TRACE_ID% %SPAN_ID%":        "01000000000000000000000000000000 0200000000000000",
		"%HOSTNAME% %ENVIRONMENT(X)%": "pod-1 env X",
		"%UPSTREAM_REQUEST_ATTEMPT_COUNT% %ACCESS_LOG_TYPE% %VIRTUAL_CLUSTER_NAME% %RESP(x)% %TRAILER(x)%": "2 DownstreamEnd - - -",
	} {
		f, err := Compile(format, opt)
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		if got := string(f.Append(nil, sample())); got != want {
			t.Errorf("%s = %q, want %q", format, got, want)
		}
	}
}

func TestBadFormats(t *testing.T) {
	for format, says := range map[string]string{
		"%NOPE%":                    "NOPE",
		"50% off":                   "%%",
		"%REQ%":                     "name of a header",
		"%REQ(x":                    "not closed",
		"%PROTOCOL(x)%":             "no argument",
		"%START_TIME(%Q)%":          "%Q",
		"%GRPC_STATUS(x)%":          "CAMEL_STRING",
		"%REQ(x):y%":                "no length",
		"%CEL(request.path)%":       "CEL",
		"%COMMON_DURATION(A:B:ms)%": "moment",
		"%ENVIRONMENT(HOME)%":       "variable",
		"%METADATA(ROUTE:x)%":       "ROUTE",
	} {
		if _, err := Compile(format, Options{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v does not mention %q", format, err, says)
		}
	}
}

func TestHostileText(t *testing.T) {
	r := sample()
	r.Request.Path = "/a\nb\x7f\"\xff"
	r.Downstream.SNI = "x\r\ny"
	f, err := Compile("%REQ(:PATH)% %REQUESTED_SERVER_NAME%\n", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append(nil, r)); strings.Count(got, "\n") != 1 || !strings.Contains(got, `\x0a`) {
		t.Errorf("text: %q", got)
	}
	j, err := CompileJSON(map[string]any{"path": "%REQ(:PATH)%", "both": "%REQUESTED_SERVER_NAME%-%REQ(:PATH)%"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]string
	if err := json.Unmarshal(j.Append(nil, r), &out); err != nil || out["path"] != "/a\nb\x7f\"\ufffd" {
		t.Errorf("JSON: %v %q", err, out)
	}
}

func TestJSON(t *testing.T) {
	f, err := CompileJSON(map[string]any{
		"n": "%RESPONSE_CODE%", "s": "%REQ(USER-AGENT)%", "none": "%REQ(X)%", "mix": "%PROTOCOL%/%REQ(X)%",
		"in": map[string]any{"k": "%DYNAMIC_METADATA(f:n)%", "lit": "a\"b"}, "list": []any{"%BYTES_SENT%", true, 1.5}, "flags": "%RESPONSE_FLAGS%",
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"flags":"-","in":{"k":{"x":1.5},"lit":"a\"b"},"list":[2000,true,1.5],"mix":"HTTP/1.1/-","n":200,"none":null,"s":"curl/8"}` + "\n"
	if got := string(f.Append(nil, sample())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	f, err = CompileJSON(map[string]any{"a": "%REQ(X)%", "b": "%PROTOCOL%", "c": "%REQ(Y)%"}, Options{OmitEmpty: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append(nil, sample())); got != `{"b":"HTTP/1.1"}`+"\n" {
		t.Errorf("omitting empty values: %s", got)
	}
	if f, err = CompileJSON(IstioJSON(), Options{}); err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(f.Append(nil, sample()), &out); err != nil || len(out) != 24 {
		t.Errorf("Istio's JSON has %d fields (%v), want 24", len(out), err)
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	f, err := Compile(IstioText, Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, b := sample(), make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { b = f.Append(b[:0], r) }); n != 0 {
		t.Errorf("%v allocations per line, want 0", n)
	}
}

// sink is a file that can be made to block.
type sink struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	gate chan struct{}
}

func (s *sink) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}
func (s *sink) Close() error { return nil }

func TestWriterWritesAllAtClose(t *testing.T) {
	s := new(sink)
	w, err := NewWriter(func() (io.WriteCloser, error) { return s, nil }, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				w.Write([]byte("line\n"))
			}
		})
	}
	wg.Wait()
	w.Close()
	w.Write([]byte("late\n"))
	if n := strings.Count(s.buf.String(), "line\n"); n != 4000 || s.buf.Len() != 20000 {
		t.Errorf("%d lines, %d bytes", n, s.buf.Len())
	}
	if w.Dropped() != 1 {
		t.Errorf("dropped %d, want the late one", w.Dropped())
	}
}

func TestWriterDropsInsteadOfBlocking(t *testing.T) {
	s := &sink{gate: make(chan struct{})}
	w, err := NewWriter(func() (io.WriteCloser, error) { return s, nil }, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Repeat([]byte("x"), 64<<10)
	for range 2 * queueBytes / len(line) * 2 {
		w.Write(line) // the file does not move
	}
	if w.Dropped() == 0 {
		t.Error("nothing was dropped")
	}
	close(s.gate)
	w.Close()
}

func TestFilesShareAndReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	fs := NewFiles(time.Hour)
	a, err := fs.Get(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := fs.Get(path); err != nil || a != b {
		t.Errorf("two writers for one path (%v)", err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	fs.Reopen()
	a.Write([]byte("after\n"))
	fs.Close()
	if got, err := os.ReadFile(path); err != nil || string(got) != "after\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := fs.Get(path); err == nil {
		t.Error("opened after Close")
	}
	if _, err := NewFiles(0).Get(filepath.Join(path, "x", "y")); err == nil {
		t.Error("no error for a path that cannot be opened")
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(IstioText)
	f.Add("%REQ(a?b):3%%START_TIME(%s%3f)%")
	r := sample()
	f.Fuzz(func(t *testing.T, format string) {
		c, err := Compile(format, Options{})
		if err != nil {
			return
		}
		c.Append(nil, r)
		j, err := CompileJSON(map[string]any{"x": format}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if out := j.Append(nil, r); !json.Valid(out) {
			t.Errorf("%q gives %q", format, out)
		}
	})
}

func BenchmarkIstioText(b *testing.B) {
	f, err := Compile(IstioText, Options{})
	if err != nil {
		b.Fatal(err)
	}
	r, buf := sample(), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = f.Append(buf[:0], r)
	}
}
