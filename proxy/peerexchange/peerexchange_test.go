// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package peerexchange

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

// pair is a TLS connection: ours, not yet told that it exchanges, and the peer's.
func pair(t testing.TB) (ours, theirs *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	ours = tls.Client(a, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{ALPN}})
	theirs = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{ALPN}})
	done := make(chan error, 1)
	go func() { done <- theirs.Handshake() }()
	if err := errors.Join(ours.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return ours, theirs
}

func preamble(t testing.TB) []byte {
	t.Helper()
	s, err := structpb.NewStruct(map[string]any{"NAME": "web-1", "LABELS": map[string]any{"app": "web"}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Preamble("sidecar~10.0.0.1~web-1.a~a.svc.cluster.local", s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPreambleIsParsed(t *testing.T) {
	b := preamble(t)
	if !bytes.HasPrefix(b, []byte{0x3d, 0x23, 0x04, 0x67}) || int(b[6])<<8+int(b[7]) != len(b)-headerSize {
		t.Errorf("begins with % x", b[:headerSize])
	}
	id, s, err := Parse(b[headerSize:])
	if err != nil || id != "sidecar~10.0.0.1~web-1.a~a.svc.cluster.local" || s.GetFields()["NAME"].GetStringValue() != "web-1" {
		t.Errorf("%q %v %v", id, s, err)
	}
	if again := preamble(t); !bytes.Equal(b, again) {
		t.Error("the same is not said in the same way")
	}
}

// Whatever the peer begins with, and however it is cut, everything behind a preamble arrives, and nothing before.
func TestWhatIsRead(t *testing.T) {
	said := string(preamble(t))
	for name, c := range map[string]struct {
		sent, read string
		heard      string // "": nothing
		err        string
	}{
		"preamble and bytes":    {sent: said + "hello", read: "hello", heard: said[headerSize:]},
		"preamble alone":        {sent: said, heard: said[headerSize:]},
		"no preamble":           {sent: "hello", read: "hello"},
		"nothing":               {},
		"cut in the number":     {sent: said[:3], read: said[:3]},
		"cut in the length":     {sent: said[:6], read: said[:6]},
		"cut in what it says":   {sent: said[:40], read: said[:40]},
		"almost the number":     {sent: said[:3] + "x" + said[4:], read: said[:3] + "x" + said[4:]},
		"too long":              {sent: said[:4] + "\x7f\xff\xff\xff" + said[8:], err: "bytes long; at most"},
		"twice, read once":      {sent: said + said, read: said, heard: said[headerSize:]},
		"more than a buffer of": {sent: said + strings.Repeat("x", 50_000), read: strings.Repeat("x", 50_000), heard: said[headerSize:]},
	} {
		for _, piece := range []int{1, 3, 1 << 20} {
			if piece == 1 && len(c.sent) > 10_000 {
				continue
			}
			t.Run(name, func(t *testing.T) {
				ours, theirs := pair(t)
				go func() {
					for rest := c.sent; rest != ""; {
						n := min(piece, len(rest))
						_, _ = io.WriteString(theirs, rest[:n])
						rest = rest[n:]
					}
					_ = theirs.CloseWrite()
				}()
				conn := &Conn{Conn: ours}
				calls, heard := 0, ""
				conn.Heard(func(p []byte) { calls++; heard = string(p) })
				got, err := io.ReadAll(conn)
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) {
						t.Errorf("got %v, want %s", err, c.err)
					}
					return
				}
				if err != nil || string(got) != c.read {
					t.Errorf("read %d bytes, %v; want %d", len(got), err, len(c.read))
				}
				if calls != 1 || heard != c.heard {
					t.Errorf("told %d times, of %d bytes; want %d", calls, len(heard), len(c.heard))
				}
			})
		}
	}
}

// Who begins waits for no answer.
func TestBegin(t *testing.T) {
	a, b := pair(t)
	said := preamble(t)
	wrote := make(chan error, 1)
	go func() {
		c, err := Begin(a, said)
		if err == nil {
			_, err = io.WriteString(c, "hello")
		}
		wrote <- err
	}()
	got := make([]byte, 5)
	if _, err := io.ReadFull(&Conn{Conn: b}, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// A deadline in the middle of a preamble loses nothing.
func TestDeadlineWithinThePreamble(t *testing.T) {
	ours, theirs := pair(t)
	conn := &Conn{Conn: ours}
	said := preamble(t)
	more := make(chan struct{})
	go func() {
		_, _ = theirs.Write(said[:20])
		<-more
		_, _ = theirs.Write(said[20:])
		_, _ = io.WriteString(theirs, "hello")
		_ = theirs.CloseWrite()
	}()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d, %v", n, err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	close(more)
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzConn(f *testing.F) {
	f.Add(preamble(f), uint8(1))
	f.Add(append(preamble(f), "hello"...), uint8(200))
	f.Add([]byte("\x3d\x23\x04\x67\x00\x00\x00\x00x"), uint8(3))
	f.Fuzz(func(t *testing.T, sent []byte, piece uint8) {
		ours, theirs := pair(t)
		go func() {
			for rest := sent; len(rest) > 0; {
				n := min(int(piece)+1, len(rest))
				_, _ = theirs.Write(rest[:n])
				rest = rest[n:]
			}
			_ = theirs.CloseWrite()
		}()
		conn := &Conn{Conn: ours}
		var heard []byte
		told := 0
		conn.Heard(func(p []byte) { told++; heard = bytes.Clone(p) })
		got, err := io.ReadAll(conn)
		if err != nil {
			return // too long
		}
		_, _, _ = Parse(heard)
		if told != 1 || !bytes.HasSuffix(sent, got) {
			t.Errorf("told %d times; read %q of %q", told, got, sent)
		}
		if rest := len(sent) - len(got); rest != 0 && rest != headerSize+len(heard) {
			t.Errorf("%d bytes are gone", rest)
		}
	})
}
