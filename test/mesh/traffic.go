// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A Caller is an application's one connection to its sidecar, or a user's to the
// gateway. Unlike net/http's client it never tries again, so that what a retry would
// hide is seen: a connection that closes under a request is a failure.
type Caller struct {
	Via netip.AddrPort // dialled
	// Patience is the longest a request may take.
	Patience time.Duration
	// Opened counts connections, Ended those that the other side announced to end
	// (Connection: close).
	Opened, Ended int

	conn net.Conn
	in   *bufio.Reader
}

// An Answer is a response read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// NewCaller returns a caller that dials when it is first used.
func NewCaller(t testing.TB, via netip.AddrPort) *Caller {
	t.Helper()
	c := &Caller{Via: via, Patience: 20 * time.Second}
	t.Cleanup(c.Close)
	return c
}

// Close ends the connection.
func (c *Caller) Close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// Get asks for url in absolute form, as an application asks its proxy. A URL that
// begins with / is asked for as it is, with the address dialled as host.
func (c *Caller) Get(url string, header ...string) (*Answer, error) {
	if url[0] == '/' {
		url = "http://" + c.Via.String() + url
	}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	a, err := c.Do(req)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("GET %s through %s: %w", url, c.Via, err)
	}
	return a, nil
}

// Do sends req, in absolute form unless it is for the address dialled.
func (c *Caller) Do(req *http.Request) (*Answer, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.Via.String())
		if err != nil {
			return nil, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
		c.Opened++
	}
	_ = c.conn.SetDeadline(time.Now().Add(c.Patience))
	write := req.WriteProxy
	if req.URL.Host == c.Via.String() {
		write = req.Write
	}
	if err := write(c.conn); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.in, req)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the connection was closed under the request: %w", err)
	} else if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.Close {
		c.Ended++
		c.Close()
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}, nil
}

// A Load is callers asking on and on.
type Load struct {
	t    testing.TB
	quit chan struct{}
	wg   sync.WaitGroup
	once sync.Once

	mu    sync.Mutex
	total Totals
}

// Totals are what came of a load.
type Totals struct {
	Sent, Failed, Opened, Ended int
	By                          map[string]int // by what the judge said of good answers
	Why                         []string       // of the first failures
}

func (t Totals) String() string {
	s := fmt.Sprintf("%d requests, %d failed, %d connections, %d announced to end, %v", t.Sent, t.Failed, t.Opened, t.Ended, t.By)
	for _, w := range t.Why {
		s += "\n\t" + w
	}
	return s
}

// StartLoad lets n callers ask for url until Stop, each pausing between requests.
// judge says what an answer is, or why it is a failure.
func StartLoad(t testing.TB, n int, pause time.Duration, via netip.AddrPort, url string, judge func(*Answer) (string, error), header ...string) *Load {
	t.Helper()
	l := &Load{t: t, quit: make(chan struct{}), total: Totals{By: make(map[string]int)}}
	for range n {
		l.wg.Go(func() {
			c := &Caller{Via: via, Patience: 20 * time.Second}
			defer func() {
				c.Close()
				l.mu.Lock()
				l.total.Opened += c.Opened
				l.total.Ended += c.Ended
				l.mu.Unlock()
			}()
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for {
				a, err := c.Get(url, header...)
				what := ""
				if err == nil {
					what, err = judge(a)
				}
				l.count(what, err)
				select {
				case <-l.quit:
					return
				case <-tick.C:
				}
			}
		})
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

func (l *Load) count(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Sent++
	if err == nil {
		l.total.By[what]++
		return
	}
	l.total.Failed++
	if len(l.total.Why) < 10 {
		l.total.Why = append(l.total.Why, time.Now().Format("15:04:05.000 ")+err.Error())
	}
}

// Sent returns how many requests were answered or failed so far.
func (l *Load) Sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total.Sent
}

// More waits until n more requests have ended.
func (l *Load) More(n int) {
	l.t.Helper()
	goal := l.Sent() + n
	Eventually(l.t, fmt.Sprintf("%d more requests", n), func() error {
		if s := l.Sent(); s < goal {
			return fmt.Errorf("%d of %d", s, goal)
		}
		return nil
	})
}

// Stop ends the load and says what came of it.
func (l *Load) Stop() Totals {
	l.once.Do(func() { close(l.quit) })
	l.wg.Wait()
	return l.total
}

// OK is the judge that only a 200 satisfies.
func OK(a *Answer) (string, error) {
	if a.Status != http.StatusOK {
		return "", fmt.Errorf("%d %s: %s", a.Status, a.Header.Get("Server"), a.Body)
	}
	return "ok", nil
}
