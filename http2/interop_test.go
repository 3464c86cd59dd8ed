// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/meltemi/meltemi/message"
)

// tlsPair returns the two ends of a TLS connection that has agreed on h2.
func tlsPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"shop.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	must(t, err)
	roots := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	roots.AddCert(parsed)
	a, b := socketPair(t)
	tc := tls.Client(a, &tls.Config{RootCAs: roots, ServerName: "shop.example.com", NextProtos: []string{"h2"}})
	ts := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}})
	shaken := make(chan error, 1)
	go func() { shaken <- ts.Handshake() }()
	must(t, tc.Handshake())
	must(t, <-shaken)
	if tc.ConnectionState().NegotiatedProtocol != "h2" {
		t.Fatal("h2 was not negotiated")
	}
	return tc, ts
}

// pairs are the ways to be connected that interoperability is tested over.
var pairs = map[string]func(testing.TB) (client, server net.Conn){"plain": socketPair, "tls": tlsPair}

func TestReferenceClient(t *testing.T) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			client, server := pair(t)
			serveOn(t, server, ServerDefaults(), func(s *ServerStream) {
				if s.Request().Expect100 {
					_ = s.WriteHead(&message.Response{Status: 100}, false)
				}
				if s.Request().Path == "/large-head" {
					reply(s, 200, "", "x-large", strings.Repeat("v", 50_000))
					return
				}
				echo(s)
			})
			cc, err := (&xhttp2.Transport{AllowHTTP: true}).NewClientConn(client)
			must(t, err)
			t.Cleanup(func() { cc.Close() })
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() { referenceEcho(t, cc, i) })
			}
			wg.Wait()
			referenceExpect(t, cc)
			resp, err := cc.RoundTrip(newRequest(t, "GET", "/large-head", nil))
			if err != nil || len(resp.Header.Get("x-large")) != 50_000 {
				t.Errorf("large head: %v", err)
			}
		})
	}
}

func newRequest(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, "http://shop.example.com"+path, body)
	must(t, err)
	return req
}

func referenceEcho(t *testing.T, cc *xhttp2.ClientConn, i int) {
	body := bytes.Repeat([]byte{byte('a' + i)}, i*40_000)
	req := newRequest(t, "POST", "/", struct{ io.Reader }{bytes.NewReader(body)})
	req.Trailer = http.Header{"X-Sum": []string{fmt.Sprint(i)}}
	resp, err := cc.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, body) || resp.Trailer.Get("x-sum") != fmt.Sprint(i) {
		t.Errorf("%d: %d bytes, trailer %v, %v", i, len(got), resp.Trailer, err)
	}
}

func referenceExpect(t *testing.T, cc *xhttp2.ClientConn) {
	req := newRequest(t, "POST", "/", strings.NewReader("x"))
	req.Header.Set("Expect", "100-continue")
	continued := false
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got100Continue: func() { continued = true }}))
	resp, err := cc.RoundTrip(req)
	must(t, err)
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "x" || !continued {
		t.Errorf("expect: %q, %v, continued %v", b, err, continued)
	}
	resp.Body.Close()
}

func TestReferenceServer(t *testing.T) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			client, server := pair(t)
			go new(xhttp2.Server).ServeConn(server, &xhttp2.ServeConnOpts{Handler: http.HandlerFunc(referenceServe)})
			c, err := NewClientConn(client, ClientDefaults())
			must(t, err)
			t.Cleanup(func() { c.Close(); await(t, c.Done()) })
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() { askReference(t, c, i) })
			}
			wg.Wait()
			s := open(t, c, get("/hints"), true)
			if resp := readHead(t, s); resp.Status != 103 || resp.Header.Get("link") != "</a.css>" {
				t.Errorf("hints: %+v", resp)
			}
			if readHead(t, s).Status != 200 || readAll(t, s) != "" {
				t.Error("after hints")
			}
			s = open(t, c, get("/panic"), true)
			if se := streamCode(t, s.ReadHead(new(message.Response))); se.Code != CodeInternal || !se.Remote {
				t.Errorf("panic: %v", se)
			}
		})
	}
}

func referenceServe(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/hints":
		w.Header().Set("link", "</a.css>")
		w.WriteHeader(103)
		return
	case "/panic":
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("trailer", "x-sum")
	_, _ = io.Copy(flusher{w}, r.Body)
	w.Header().Set("x-sum", r.Trailer.Get("x-sum"))
}

type flusher struct{ w http.ResponseWriter }

func (f flusher) Write(p []byte) (int, error) {
	defer f.w.(http.Flusher).Flush()
	return f.w.Write(p)
}

func askReference(t *testing.T, c *ClientConn, i int) {
	body := bytes.Repeat([]byte{byte('a' + i)}, i*40_000)
	s, err := c.Open()
	if err != nil {
		t.Error(err)
		return
	}
	deadline(s)
	req := post("/")
	req.Header.Add("Trailer", textproto.CanonicalMIMEHeaderKey("x-sum"))
	if err := s.WriteHead(req, false); err != nil {
		t.Error(err)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := s.Write(body); err != nil {
			t.Error(err)
		}
		var trailer message.Header
		trailer.Add("x-sum", fmt.Sprint(i))
		if err := s.Finish(&trailer); err != nil {
			t.Error(err)
		}
	}()
	var resp message.Response
	if err := s.ReadHead(&resp); err != nil {
		t.Error(err)
		return
	}
	got, err := io.ReadAll(s)
	<-done
	if err != nil || !bytes.Equal(got, body) || s.Trailer() == nil || s.Trailer().Get("x-sum") != fmt.Sprint(i) {
		t.Errorf("%d: %d bytes, %v, trailer %v", i, len(got), err, s.Trailer())
	}
}
