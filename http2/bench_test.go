// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/meltemi/meltemi/message"
)

var benchBody = bytes.Repeat([]byte("x"), 1024)

func benchHandler(s *ServerStream) {
	buf := make([]byte, 2048)
	for {
		if _, err := s.Read(buf); err != nil {
			break
		}
	}
	resp := message.Response{Status: 200}
	resp.Header.Add("content-type", "application/json")
	resp.Header.Add("content-length", "1024")
	resp.Header.Add("server", "bench")
	resp.Header.Add("date", "Mon, 02 Jan 2006 15:04:05 GMT")
	if s.WriteHead(&resp, false) == nil {
		_, _ = s.Write(benchBody)
		_ = s.Finish(nil)
	}
}

func benchRequest() *message.Request {
	req := get("/productpage?u=normal")
	req.Header.Add("user-agent", "bench/1.0")
	req.Header.Add("accept", "*/*")
	req.Header.Add("x-request-id", "8f7a6d2e-0c4b-4d7e-9e61-7a3f2b1c0d9e")
	return req
}

func exchangeOnce(c *ClientConn, req *message.Request, resp *message.Response, buf []byte) error {
	s, err := c.Open()
	if err != nil {
		return err
	}
	if err := s.WriteHead(req, true); err != nil {
		return err
	}
	if err := s.ReadHead(resp); err != nil {
		return err
	}
	for {
		if _, err := s.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// BenchmarkRequests is one request after the other on each of n streams.
func BenchmarkRequests(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("streams=%d", n), func(b *testing.B) {
			c, _ := connect(b, benchHandler)
			<-c.Ready()
			b.ReportAllocs()
			inParallel(b, n, func() func() error {
				req, resp, buf := benchRequest(), new(message.Response), make([]byte, 4096)
				return func() error { return exchangeOnce(c, req, resp, buf) }
			})
		})
	}
}

// inParallel runs what begin returns b.N times in all, in n goroutines.
func inParallel(b *testing.B, n int, begin func() func() error) {
	var wg sync.WaitGroup
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	b.ResetTimer()
	before := cpuTime()
	for range n {
		wg.Go(func() {
			f := begin()
			for range work {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what this process has used: comparable even on a busy machine.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReference is BenchmarkRequests with golang.org/x/net/http2 at both ends.
func BenchmarkReference(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("streams=%d", n), func(b *testing.B) {
			client, server := socketPair(b)
			go new(xhttp2.Server).ServeConn(server, &xhttp2.ServeConnOpts{Handler: http.HandlerFunc(referenceHandler)})
			tr := &xhttp2.Transport{AllowHTTP: true}
			cc, err := tr.NewClientConn(client)
			if err != nil {
				b.Fatal(err)
			}
			if err := cc.Ping(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			inParallel(b, n, func() func() error {
				return func() error {
					req, _ := http.NewRequest("GET", "http://shop.example.com/productpage?u=normal", nil)
					req.Header.Set("user-agent", "bench/1.0")
					req.Header.Set("accept", "*/*")
					req.Header.Set("x-request-id", "8f7a6d2e-0c4b-4d7e-9e61-7a3f2b1c0d9e")
					resp, err := cc.RoundTrip(req)
					if err != nil {
						return err
					}
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					return err
				}
			})
			cc.Close()
		})
	}
}

func referenceHandler(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("content-type", "application/json")
	h.Set("content-length", "1024")
	h.Set("server", "bench")
	h.Set("date", "Mon, 02 Jan 2006 15:04:05 GMT")
	_, _ = w.Write(benchBody)
}

// BenchmarkBulk is one large response body.
func BenchmarkBulk(b *testing.B) {
	chunk := make([]byte, 64<<10)
	c, _ := connect(b, func(s *ServerStream) {
		_ = s.WriteHead(&message.Response{Status: 200}, false)
		for {
			if _, err := s.Write(chunk); err != nil {
				return
			}
		}
	})
	s := openForBench(b, c)
	b.SetBytes(int64(len(chunk)))
	buf := make([]byte, len(chunk))
	b.ResetTimer()
	for range b.N {
		if _, err := io.ReadFull(s, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	s.Abort(uint32(CodeCancel))
}

func openForBench(b *testing.B, c *ClientConn) *ClientStream {
	s, err := c.Open()
	must(b, err)
	must(b, s.WriteHead(get("/"), true))
	must(b, s.ReadHead(new(message.Response)))
	return s
}
