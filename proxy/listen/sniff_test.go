// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

// clientHello makes the first bytes a Go client sends.
func clientHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	rec := &recorder{}
	_ = tls.Client(rec, cfg).Handshake() // ends when the recorder has no answer
	return rec.wrote.Bytes()
}

type recorder struct{ wrote bytes.Buffer }

func (r *recorder) Read([]byte) (int, error)         { return 0, io.EOF }
func (r *recorder) Write(b []byte) (int, error)      { return r.wrote.Write(b) }
func (r *recorder) Close() error                     { return nil }
func (r *recorder) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (r *recorder) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (r *recorder) SetDeadline(time.Time) error      { return nil }
func (r *recorder) SetReadDeadline(time.Time) error  { return nil }
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

// twin parses a ClientHello with crypto/tls.
func twin(b []byte) (h hello, ok bool) {
	stop := errors.New("seen")
	srv := tls.Server(&replay{recorder: &recorder{}, in: bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			h = hello{sni: strings.ToLower(i.ServerName), alpn: i.SupportedProtos}
			ok = true
			return nil, stop
		},
	})
	_ = srv.Handshake()
	return h, ok
}

type replay struct {
	*recorder
	in *bytes.Reader
}

func (r *replay) Read(b []byte) (int, error) { return r.in.Read(b) }

func TestClientHello(t *testing.T) {
	for _, cfg := range []*tls.Config{
		{ServerName: "Outbound_.80_.v1_.reviews.default.svc.cluster.local", NextProtos: []string{"istio-http/1.1", "istio", "http/1.1"}},
		{InsecureSkipVerify: true},
		{ServerName: "a.b", MaxVersion: tls.VersionTLS12},
	} {
		b := clientHello(t, cfg)
		got, err := parseHello(b)
		if err != nil || got.sni != strings.ToLower(cfg.ServerName) || !slices.Equal(got.alpn, cfg.NextProtos) {
			t.Errorf("parseHello = %+v, %v; want %q %q", got, err, cfg.ServerName, cfg.NextProtos)
		}
		for n := range b {
			if _, err := parseHello(b[:n]); err != errMore {
				t.Fatalf("first %d of %d bytes: %v, want errMore", n, len(b), err)
			}
		}
	}
}

func TestClientHelloInManyRecords(t *testing.T) {
	b := clientHello(t, &tls.Config{ServerName: "split.example"})
	var split []byte
	for body := b[recordHeader:]; len(body) > 0; {
		n := min(7, len(body))
		split = append(split, b[0], b[1], b[2], 0, byte(n))
		split = append(split, body[:n]...)
		body = body[n:]
	}
	if h, err := parseHello(split); err != nil || h.sni != "split.example" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestNotTLS(t *testing.T) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", "\x16\x02", "SSH-2.0-x\r\n", "\x16\x03\x01\x00\x00", "\x16\x03\x01\x00\x01\x02"} {
		if _, err := parseHello([]byte(s)); err != errNotTLS {
			t.Errorf("%q: %v, want errNotTLS", s, err)
		}
	}
}

// What crypto/tls accepts, we must see the same in; what we reject, it may not accept.
func FuzzClientHelloAgreesWithTwin(f *testing.F) {
	f.Add(clientHello(f, &tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}}))
	f.Add(clientHello(f, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseHello(b)
		want, ok := twin(b)
		if !ok {
			return
		}
		if err != nil {
			t.Fatalf("crypto/tls saw %+v, we: %v", want, err)
		}
		if got.sni != strings.TrimSuffix(want.sni, ".") || !slices.Equal(got.alpn, want.alpn) && len(want.alpn) <= maxALPN {
			t.Fatalf("got %+v, crypto/tls saw %+v", got, want)
		}
	})
}

func TestSniffHTTP(t *testing.T) {
	for _, c := range []struct {
		in, proto string
		done      bool
	}{
		{"GET / HTTP/1.1\r\n", "http/1.1", true},
		{"GET / HTTP/1.0\n", "http/1.0", true},
		{"\r\nPOST /x?y=z HTTP/1.1\r\nHost:", "http/1.1", true},
		{"PROPFIND http://h/ HTTP/1.1\r\n", "http/1.1", true},
		{http2Preface, "h2c", true},
		{http2Preface[:10], "", false},
		{"PR", "", false},
		{"PRINT / HTTP/1.1\r\n", "http/1.1", true},
		{"", "", false},
		{"GET", "", false},
		{"GET /", "", false},
		{"HELO mail\r\n", "", true},
		{"\x00\x01", "", true},
		{"SSH-2.0-OpenSSH_9\r\n", "", true},
		{strings.Repeat("A", 40), "", true},
		{"GET / HTTP/3.0\r\n", "", true},
		{"GET " + strings.Repeat("/", maxHTTPLine), "", true},
	} {
		if proto, done := sniffHTTP([]byte(c.in)); proto != c.proto || done != c.done {
			t.Errorf("%.40q: %q, %v; want %q, %v", c.in, proto, done, c.proto, c.done)
		}
	}
}

// Waiting for more bytes must end, and a decision once made must stand.
func FuzzSniffHTTP(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"), 3)
	f.Add([]byte(http2Preface), 5)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if cut < 0 || cut > len(b) {
			return
		}
		early, done := sniffHTTP(b[:cut])
		whole, _ := sniffHTTP(b)
		if done && early != whole {
			t.Fatalf("decided %q on %d bytes, %q on %d", early, cut, whole, len(b))
		}
		if _, done := sniffHTTP(b); !done && len(b) > maxHTTPLine+maxMethod {
			t.Fatalf("still waiting after %d bytes", len(b))
		}
	})
}

// The timeout is for servers that speak first. It says nothing of a client whose first words are on their way, in
// several segments, one of which was lost, and nothing where no server could speak first.
func TestWhoHasBegunToSpeakIsWaitedFor(t *testing.T) {
	hello := string(clientHello(t, &tls.Config{ServerName: "a.example"}))
	begun, rest := hello[:1400], hello[1400:]
	secure := &config.FilterChain{Name: "tls", Match: config.ChainMatch{Transport: "tls"}, TLS: &config.TLS{}, HandshakeTimeout: 5 * time.Second}
	bytes, http := &config.FilterChain{Name: "bytes"}, &config.FilterChain{Name: "http", HTTP: &config.HTTP{}}
	const early, late, end = 100 * time.Millisecond, 250 * time.Millisecond, 5 * time.Second
	for name, c := range map[string]struct {
		first, then string // at once and late
		plain       *config.FilterChain
		strict      bool // closes on timeout
		want        string
		after       time.Duration
		err         error
	}{
		"a hello in two pieces":                    {begun, rest, bytes, false, "tls", late, nil},
		"one of which is a byte":                   {hello[:1], hello[1:], bytes, false, "tls", late, nil},
		"though it may be closed":                  {begun, rest, bytes, true, "tls", late, nil},
		"a piece that remains alone":               {begun, "", bytes, false, "raw_buffer", end, nil},
		"which turns out to be none":               {"\x16\x03", "\x09\x00\x00", bytes, false, "raw_buffer", late, nil},
		"a late hello, where the server may begin": {"", hello, bytes, false, "raw_buffer", early, nil},
		"and where only TLS is taken":              {"", hello, nil, false, "tls", late, nil},
		"or HTTP":                                  {"", hello, http, false, "tls", late, nil},
		"silence where only TLS is taken":          {"", "", nil, false, "raw_buffer", end, nil},
		"silence where it is not permitted":        {"", "", nil, true, "raw_buffer", early, ErrSilent},
		"a request line in two pieces":             {"GET /" + strings.Repeat("a", 2000), " HTTP/1.1\r\n", bytes, false, "http/1.1", late, nil},
		"a preface in two pieces":                  {http2Preface[:6], http2Preface[6:], bytes, false, "h2c", late, nil},
		"a word of another protocol":               {"JDWP-Handshake", "", bytes, false, "raw_buffer", early, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &config.Listener{
					TLSInspector: &config.Inspector{}, HTTPInspector: &config.Inspector{}, InspectTimeout: early, ContinueOnTimeout: !c.strict,
					Chains: []*config.FilterChain{secure}, Default: c.plain,
				}
				if _, err := config.NewSnapshot(1, l); err != nil {
					t.Fatal(err)
				}
				client, server := net.Pipe()
				var said sync.WaitGroup
				said.Go(func() {
					if c.first != "" {
						_, _ = io.WriteString(client, c.first)
					}
					time.Sleep(late) // fake time
					if c.then != "" {
						_, _ = io.WriteString(client, c.then)
					}
				})
				begin := time.Now()
				seen, err := Inspect(netio.NewPeeked(server), l, &filter.Conn{})
				got := seen.Transport
				if len(seen.Protocols) > 0 && got != "tls" {
					got = seen.Protocols[0]
				}
				if took := time.Since(begin); got != c.want || !errors.Is(err, c.err) || took != c.after {
					t.Errorf("%s after %s, %v; want %s after %s, %v", got, took, err, c.want, c.after, c.err)
				}
				_, _ = client.Close(), server.Close()
				said.Wait()
			})
		})
	}
}

// Where the client must speak first it may take its time to begin, but not to go on.
func TestAwaitedIsWhoBegins(t *testing.T) {
	const begins, end = time.Hour, time.Hour + defaultHelloTime
	for name, c := range map[string]struct {
		first, then string // when it begins, and a second later
		proto       []string
		after       time.Duration
	}{
		"a request":              {"GET / HTTP/1.1\r\n", "", []string{"http/1.1"}, begins},
		"a request in pieces":    {"G", "ET / HTTP/1.1\r\n", []string{"http/1.1"}, begins + time.Second},
		"a request that stops":   {"GET /", "", nil, end},
		"a hello that stops":     {"\x16\x03\x01", "", nil, end},
		"a word of another kind": {"\x00", "", nil, begins},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &config.Listener{TLSInspector: &config.Inspector{}, HTTPInspector: &config.Inspector{}, InspectTimeout: time.Nanosecond, ContinueOnTimeout: true}
				client, server := net.Pipe()
				var said sync.WaitGroup
				said.Go(func() {
					time.Sleep(begins) // fake time
					_, _ = io.WriteString(client, c.first)
					time.Sleep(time.Second)
					if c.then != "" {
						_, _ = io.WriteString(client, c.then)
					}
				})
				begin := time.Now()
				seen, err := Await(netio.NewPeeked(server), l, &filter.Conn{}, nil)
				if took := time.Since(begin); err != nil || !slices.Equal(seen.Protocols, c.proto) || took != c.after {
					t.Errorf("%v after %s, %v; want %v after %s", seen.Protocols, took, err, c.proto, c.after)
				}
				_, _ = client.Close(), server.Close()
				said.Wait()
			})
		})
	}
}
