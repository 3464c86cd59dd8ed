// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package head

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/net/http2/hpack"

	"github.com/meltemi/meltemi/message"
)

var roomy = Limits{Bytes: 1 << 16, Fields: 100, String: 1 << 17}

// decode returns what a peer's decoder makes of a block.
func decode(t testing.TB, dec *hpack.Decoder, block []byte) string {
	t.Helper()
	fields, err := dec.DecodeFull(block)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%s=%s;", f.Name, f.Value)
	}
	return b.String()
}

func TestRequestOnTheWire(t *testing.T) {
	var h message.Header
	for _, f := range [][2]string{
		{"Host", "other"}, {"Connection", "close"}, {"TE", "trailers, deflate"}, {"te", "Trailers"}, {"Upgrade", "x"},
		{"Keep-Alive", "5"}, {"Proxy-Connection", "x"}, {"Transfer-Encoding", "chunked"}, {"Sec-WebSocket-Key", "k"}, {"X-B3-TraceId", "7"},
	} {
		h.Add(f[0], f[1])
	}
	for _, c := range []struct {
		req  message.Request
		want string
	}{
		{message.Request{Method: "GET", Path: "/", Authority: "a"}, ":method=GET;:scheme=http;:path=/;:authority=a;te=Trailers;sec-websocket-key=k;x-b3-traceid=7;"},
		{message.Request{Method: "OPTIONS", Scheme: "https", Path: "*"}, ":method=OPTIONS;:scheme=https;:path=*;te=Trailers;sec-websocket-key=k;x-b3-traceid=7;"},
		{message.Request{Method: "CONNECT", Authority: "a:1"}, ":method=CONNECT;:authority=a:1;te=Trailers;sec-websocket-key=k;x-b3-traceid=7;"},
		{message.Request{Method: "GET", Path: "/c", Authority: "a", Protocol: "websocket"},
			":method=CONNECT;:scheme=http;:path=/c;:authority=a;:protocol=websocket;te=Trailers;x-b3-traceid=7;"},
	} {
		c.req.Header = h
		if err := CheckRequest(&c.req); err != nil {
			t.Fatal(err)
		}
		if got := decode(t, hpack.NewDecoder(4096, nil), NewEncoder().Request(nil, &c.req)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestWhatCannotBeSent(t *testing.T) {
	ok := message.Request{Method: "GET", Path: "/", Authority: "a", Scheme: "http"}
	for name, spoil := range map[string]func(r *message.Request){
		"method":       func(r *message.Request) { r.Method = "GET /" },
		"no method":    func(r *message.Request) { r.Method = "" },
		"path":         func(r *message.Request) { r.Path = "/ HTTP/1.1\r\nx: y" },
		"no path":      func(r *message.Request) { r.Path = "" },
		"authority":    func(r *message.Request) { r.Authority = "a\r\nb" },
		"protocol":     func(r *message.Request) { r.Protocol = "a b" },
		"scheme":       func(r *message.Request) { r.Scheme = "ht tp" },
		"field name":   func(r *message.Request) { r.Header.Add("a b", "") },
		"pseudo field": func(r *message.Request) { r.Header.Add(":path", "/admin") },
		"no name":      func(r *message.Request) { r.Header.Add("", strings.Repeat("x", 100)) },
		"line break":   func(r *message.Request) { r.Header.Add("a", "b\nc: d") },
		"blank":        func(r *message.Request) { r.Header.Add("a", " b") },
	} {
		req := ok
		spoil(&req)
		if err := CheckRequest(&req); err == nil {
			t.Errorf("%s: may be sent", name)
		}
	}
	if err := CheckRequest(&ok); err != nil {
		t.Error(err)
	}
}

// What is secret, or different each time, never gets into the shared table.
func TestWhatIsIndexed(t *testing.T) {
	enc, dec := NewEncoder(), hpack.NewDecoder(4096, nil)
	var h message.Header
	send := func(i int) int {
		h.Reset()
		h.Add("authorization", "Bearer secret")
		h.Add("cookie", "session=secret")
		h.Add("x-request-id", fmt.Sprint("id-", i))
		h.Add("x-stable", "always the same value, rather long")
		h.Add("date", fmt.Sprint("second ", i/3))
		b := enc.Response(nil, 200, &h, false)
		want := ":status=200;authorization=Bearer secret;cookie=session=secret;" + fmt.Sprintf("x-request-id=id-%d;x-stable=always the same value, rather long;date=second %d;", i, i/3)
		if got := decode(t, dec, b); got != want {
			t.Fatalf("got %s", got)
		}
		return len(b)
	}
	first := send(0)
	for i := 1; i < 300; i++ {
		send(i)
	}
	if last := send(300); last >= first-35 {
		t.Errorf("a repeated head takes %d bytes, the first took %d", last, first)
	}
	for n := enc.first; n != enc.next; n++ {
		e := enc.entries[n%maxEntries]
		if strings.Contains(e.value, "secret") || strings.HasPrefix(e.value, "id-") {
			t.Errorf("in the table: %s: %s", e.name, e.value)
		}
	}
}

// Strings that are given to the encoder may change afterwards.
func TestEncoderKeepsNoStringOfItsCaller(t *testing.T) {
	enc, dec := NewEncoder(), hpack.NewDecoder(4096, nil)
	name, value := []byte("X-Name"), []byte("value-1")
	var h message.Header
	for i := range 6 {
		value[6] = byte('1' + i%2)
		h.Reset()
		h.Add(alias(name), alias(value))
		if got, want := decode(t, dec, enc.Trailer(nil, &h)), fmt.Sprintf("x-name=value-%d;", 1+i%2); got != want {
			t.Errorf("round %d: %s, want %s", i, got, want)
		}
	}
}

func TestHeadsDoNotAllocate(t *testing.T) {
	enc, dec := NewEncoder(), NewDecoder(roomy)
	req := message.Request{Method: "GET", Scheme: "http", Authority: "shop.example.com", Path: "/productpage"}
	for i := range 10 {
		req.Header.Add(fmt.Sprint("X-Header-", i), "a value of common length")
	}
	var block []byte
	var got message.Request
	once := func() {
		if CheckRequest(&req) != nil {
			t.Fatal("cannot be sent")
		}
		block = enc.Request(block[:0], &req)
		dec.Begin()
		if _, err := dec.Write(block); err != nil {
			t.Fatal(err)
		}
		if err := dec.End(); err != nil {
			t.Fatal(err)
		}
		if reason := dec.Request(&got, true, false); reason != "" {
			t.Fatal(reason)
		}
	}
	for range 5 {
		once()
	}
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	if got.Path != "/productpage" || got.Authority != "shop.example.com" {
		t.Errorf("got %+v", got)
	}
}

func BenchmarkHeads(b *testing.B) {
	enc, dec := NewEncoder(), NewDecoder(roomy)
	req := message.Request{Method: "GET", Scheme: "http", Authority: "shop.example.com", Path: "/productpage"}
	for i := range 12 {
		req.Header.Add(fmt.Sprint("x-header-", i), "a value of common length")
	}
	req.Header.Add("x-request-id", "8f7a6d2e-0c4b-4d7e-9e61-7a3f2b1c0d9e")
	var block []byte
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			_ = CheckRequest(&req)
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			block = enc.Request(block[:0], &req)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		enc = NewEncoder()
		var got message.Request
		for b.Loop() {
			block = enc.Request(block[:0], &req)
			dec.Begin()
			_, _ = dec.Write(block)
			_ = dec.End()
			dec.Request(&got, true, false)
		}
	})
}

func alias(b []byte) string { return unsafe.String(&b[0], len(b)) }
