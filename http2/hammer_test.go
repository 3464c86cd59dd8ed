// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/message"
)

// TestHammer lets many streams do everything at random at once, both ends. When
// all is over nothing may be left: no stream, no goroutine, and both ends agree
// on every byte of the connection's windows.
func TestHammer(t *testing.T) {
	c, s := connect(t, chaoticServer, func(sc *ServerConfig, cc *ClientConfig) {
		sc.StreamWindow, sc.MaxStreamWindow, sc.ConnWindow = 5000, 20_000, 70_000
		cc.StreamWindow, cc.MaxStreamWindow, cc.ConnWindow = 7000, 7000, 80_000
		sc.Limits.Resets, sc.Limits.Unknown = 1<<20, 1<<20
		cc.Limits.Resets, cc.Limits.Unknown = 1<<20, 1<<20
	})
	<-c.Ready()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range 25 {
				if r.IntN(3) == 0 {
					peacefulClient(t, c, r)
				} else if !chaoticClient(t, c, r) {
					return
				}
			}
		})
	}
	wg.Wait()
	if c.Err() != nil {
		t.Fatalf("the connection ended: %v", c.Err())
	}
	eventually(t, "streams end", func() bool { return c.ActiveStreams() == 0 && s.ActiveStreams() == 0 })
	eventually(t, "windows agree", func() bool { return agree(&c.conn, &s.conn) && agree(&s.conn, &c.conn) })
}

// agree says whether what from may send is what to expects, and to has kept
// nothing of its window back.
func agree(from, to *conn) bool {
	from.mu.Lock()
	may := from.sendWin
	from.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	return len(to.streams) == 0 && to.first == nil && to.in.left == may && to.in.left+to.in.owed == to.in.size
}

func chaoticServer(s *ServerStream) {
	r := rand.New(rand.NewPCG(uint64(len(s.Request().Path)), 2))
	deadline(s)
	if s.Request().Path == "/peace" {
		echo(s)
		return
	}
	switch r.IntN(8) {
	case 0:
		return
	case 1:
		s.Abort(uint32(CodeCancel))
		return
	case 2:
		reply(s, 200, "early")
		return
	case 3:
		_ = s.SetReadDeadline(time.Now().Add(time.Duration(r.IntN(2000)) * time.Microsecond))
	case 4:
		_ = s.SetWriteDeadline(time.Now().Add(time.Duration(r.IntN(2000)) * time.Microsecond))
	}
	echo(s)
}

func chaoticClient(t *testing.T, c *ClientConn, r *rand.Rand) bool {
	s, err := c.Open()
	if err != nil {
		t.Errorf("Open: %v", err)
		return false
	}
	deadline(s)
	path := "/" + "abcdefghijklmnopqrstuvwxyz"[:r.IntN(26)]
	if err := s.WriteHead(post(path), r.IntN(10) == 0); err != nil {
		t.Errorf("WriteHead: %v", err)
		return false
	}
	var wg sync.WaitGroup
	size, trailer := r.IntN(60_000), r.IntN(2) == 0
	pause := r.IntN(3)
	wg.Go(func() {
		for size > 0 {
			n := min(size, 1+size/3)
			if _, err := s.Write(make([]byte, n)); err != nil {
				return
			}
			size -= n
		}
		var h message.Header
		if trailer {
			h.Add("x-trailer", "1")
		}
		_ = s.Finish(&h)
	})
	if pause == 0 {
		s.Abort(uint32(CodeCancel))
	}
	var resp message.Response
	if s.ReadHead(&resp) == nil {
		if r.IntN(4) == 0 {
			_, _ = io.CopyN(io.Discard, s, int64(r.IntN(20_000)))
		} else {
			_, _ = io.Copy(io.Discard, s)
		}
	}
	s.Abort(uint32(CodeCancel))
	wg.Wait()
	return true
}

// peacefulClient must get back what it sends, whatever others do.
func peacefulClient(t *testing.T, c *ClientConn, r *rand.Rand) {
	s, err := c.Open()
	if err != nil {
		t.Errorf("Open: %v", err)
		return
	}
	deadline(s)
	if err := s.WriteHead(post("/peace"), false); err != nil {
		t.Errorf("WriteHead: %v", err)
		return
	}
	sum, size, sent := 0, r.IntN(40_000), make(chan struct{})
	go func() {
		defer close(sent)
		for n := size; n > 0; {
			p := make([]byte, min(n, 1+n/2))
			for i := range p {
				p[i] = byte(n - i)
			}
			if _, err := s.Write(p); err != nil {
				t.Errorf("peaceful Write: %v", err)
				return
			}
			n -= len(p)
		}
		if err := s.Finish(nil); err != nil {
			t.Errorf("peaceful Finish: %v", err)
		}
	}()
	for n := size; n > 0; n-- {
		sum += int(byte(n))
	}
	var resp message.Response
	if err := s.ReadHead(&resp); err != nil {
		t.Errorf("peaceful ReadHead: %v", err)
	}
	body, err := io.ReadAll(s)
	if err != nil || len(body) != size {
		t.Errorf("peaceful body: %d bytes of %d, %v", len(body), size, err)
	}
	for _, b := range body {
		sum -= int(b)
	}
	if sum != 0 {
		t.Error("the body was changed on the way")
	}
	<-sent
}
