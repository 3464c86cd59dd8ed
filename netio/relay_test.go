// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meltemi/meltemi/netio/memnet"
)

type relayResult struct {
	ab, ba int64
	err    error
}

func startRelay(a, b net.Conn, idle time.Duration) <-chan relayResult {
	done := make(chan relayResult, 1)
	go func() {
		var moved Counts
		err := Relay(a, b, idle, &moved)
		done <- relayResult{moved.AToB.Load(), moved.BToA.Load(), err}
	}()
	return done
}

// rigs are the kinds of connections a relay meets: client ~ a, relay, b ~ server.
func rigs(t *testing.T) map[string]func() (client, a, b, server net.Conn) {
	l := listen(t, anyPort4)
	return map[string]func() (client, a, b, server net.Conn){
		"tcp": func() (net.Conn, net.Conn, net.Conn, net.Conn) {
			c, a := tcpPair(t, l)
			b, s := tcpPair(t, l)
			return c, a, b, s
		},
		"memory": func() (net.Conn, net.Conn, net.Conn, net.Conn) {
			c, a := memnet.Pair()
			b, s := memnet.Pair()
			return c, a, b, s
		},
		"mixed": func() (net.Conn, net.Conn, net.Conn, net.Conn) {
			c, a := tcpPair(t, l)
			b, s := memnet.Pair()
			return c, a, b, s
		},
	}
}

func TestRelayCarriesBothWaysAndHalfCloses(t *testing.T) {
	for name, rig := range rigs(t) {
		for _, size := range []int{0, 1, 1000, copyBuffer + 1, 5 << 20} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				client, a, b, server := rig()
				done := startRelay(a, b, time.Minute)
				up, down := randomBytes(size), randomBytes(size/2)
				go func() {
					_, _ = client.Write(up)
					_ = closeWrite(client)
				}()
				// The server answers only after it has seen the end of the request.
				if got, err := io.ReadAll(server); err != nil || sha256.Sum256(got) != sha256.Sum256(up) {
					t.Fatalf("server got %d of %d, %v", len(got), size, err)
				}
				go func() {
					_, _ = server.Write(down)
					_ = closeWrite(server)
				}()
				if got, err := io.ReadAll(client); err != nil || sha256.Sum256(got) != sha256.Sum256(down) {
					t.Fatalf("client got %d of %d, %v", len(got), len(down), err)
				}
				r := <-done
				if r.err != nil || r.ab != int64(len(up)) || r.ba != int64(len(down)) {
					t.Errorf("relay = %+v", r)
				}
			})
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

func TestRelayGivesBackWhatWasPeeked(t *testing.T) {
	for name, rig := range rigs(t) {
		t.Run(name, func(t *testing.T) {
			client, a, b, server := rig()
			_, _ = client.Write([]byte("hello "))
			pa, pb := NewPeeked(a), NewPeeked(NewPeeked(b))
			if _, err := pa.Peek(6); err != nil {
				t.Fatal(err)
			}
			done := startRelay(pa, pb, 0)
			_, _ = client.Write([]byte("world"))
			_ = closeWrite(client)
			if got, err := io.ReadAll(server); string(got) != "hello world" || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
			_ = server.Close()
			if r := <-done; r.ab != 11 {
				t.Errorf("relay = %+v", r)
			}
		})
	}
}

func TestRelayOfPeekedThatHadEnded(t *testing.T) {
	client, a := memnet.Pair()
	b, server := memnet.Pair()
	_, _ = client.Write([]byte("bye"))
	_ = client.CloseWrite()
	p := NewPeeked(a)
	if _, err := p.Peek(4); err != io.EOF {
		t.Fatal(err)
	}
	done := startRelay(p, b, 0)
	if got, _ := io.ReadAll(server); string(got) != "bye" {
		t.Errorf("got %q", got)
	}
	_ = server.Close()
	if r := <-done; r.err != nil || r.ab != 3 {
		t.Errorf("relay = %+v", r)
	}
}

// What has passed can be told while the relay goes on.
func TestRelayCountsAsItGoes(t *testing.T) {
	for name, rig := range rigs(t) {
		t.Run(name, func(t *testing.T) {
			client, a, b, server := rig()
			var moved Counts
			done := make(chan error, 1)
			go func() { done <- Relay(a, b, 0, &moved) }()
			for i := range int64(3) {
				_, _ = client.Write([]byte("hello"))
				if _, err := io.ReadFull(server, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				// What has arrived was counted just after.
				for deadline := time.Now().Add(10 * time.Second); moved.AToB.Load() != 5*(i+1); runtime.Gosched() {
					if time.Now().After(deadline) {
						t.Fatalf("%d bytes counted after %d", moved.AToB.Load(), 5*(i+1))
					}
				}
			}
			_, _ = client.Close(), server.Close()
			<-done
			if up, down := moved.AToB.Load(), moved.BToA.Load(); up != 15 || down != 0 {
				t.Errorf("%d and %d bytes", up, down)
			}
		})
	}
}

// A panic in either direction is the caller's, and leaves nothing open.
func TestRelayPassesPanicsOn(t *testing.T) {
	for name, rig := range rigs(t) {
		for _, first := range []bool{true, false} {
			client, a, b, server := rig()
			ends := [2]net.Conn{a, b}
			i := 0
			if !first {
				i = 1
			}
			ends[i] = broken{ends[i]}
			func() {
				defer func() {
					if p := recover(); !strings.Contains(fmt.Sprint(p), "no such luck") || !strings.Contains(fmt.Sprint(p), "relay_test.go") {
						t.Errorf("%s: %v", name, p)
					}
				}()
				_ = Relay(ends[0], ends[1], time.Minute, new(Counts))
			}()
			for _, c := range []net.Conn{client, server} {
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Errorf("%s: a connection is left open", name)
				}
			}
		}
	}
}

type broken struct{ net.Conn }

func (broken) Read([]byte) (int, error) { panic("no such luck") }

func TestRelayIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, a := memnet.Pair()
		b, server := memnet.Pair()
		start := time.Now()
		done := startRelay(a, b, time.Minute)
		for range 10 { // moving bytes, slowly, in one direction only
			time.Sleep(50 * time.Second) // fake time
			_, _ = server.Write([]byte("."))
			if _, err := client.Read(make([]byte, 1)); err != nil {
				t.Fatal("ended while in use:", err)
			}
		}
		_ = client.CloseWrite() // a half-closed relay is watched, too
		r := <-done
		if !errors.Is(r.err, ErrIdle) || r.ba != 10 {
			t.Errorf("relay = %+v", r)
		}
		if d := time.Since(start) - 500*time.Second; d < time.Minute || d > 75*time.Second {
			t.Errorf("ended %s after the last byte", d)
		}
	})
}

func TestRelayPassesResetOn(t *testing.T) {
	l := listen(t, anyPort4)
	client, a := tcpPair(t, l)
	b, server := tcpPair(t, l)
	done := startRelay(a, b, 0)
	_, _ = client.Write([]byte("x"))
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = client.SetLinger(0)
	_ = client.Close()
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server read: %v, want a reset", err)
	}
	if r := <-done; !errors.Is(r.err, syscall.ECONNRESET) || r.ab != 1 {
		t.Errorf("relay = %+v", r)
	}
}

func BenchmarkRelay(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l, err := Listen(b.Context(), anyPort4, SocketOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			pair := func() (*net.TCPConn, *net.TCPConn) {
				c, _ := new(Dialer).Dial(b.Context(), AddrPortOf(l.Addr()))
				s, _ := l.AcceptTCP()
				return c, s
			}
			client, a := pair()
			up, server := pair()
			done := startRelay(a, up, time.Hour)
			go func() { _, _ = io.Copy(server, server); _ = server.CloseWrite() }()
			out, in := make([]byte, size), make([]byte, size)
			b.SetBytes(int64(2 * size))
			b.ReportAllocs()
			for b.Loop() {
				go func() { _, _ = client.Write(out) }()
				if _, err := io.ReadFull(client, in); err != nil {
					b.Fatal(err)
				}
			}
			_ = client.CloseWrite()
			<-done
		})
	}
}
