// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"testing"
)

func TestProxyHeader(t *testing.T) {
	v2 := proxyV2 + "\x21\x11\x00\x0c" + "\x0a\x00\x00\x01" + "\x0a\x00\x00\x02" + "\x13\x88\x00\x50"
	for _, c := range []struct{ in, src, dst string }{
		{"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\nGET", "10.0.0.1:5000", "10.0.0.2:80"},
		{"PROXY TCP6 ::1 ::2 1 2\r\n", "[::1]:1", "[::2]:2"},
		{"PROXY UNKNOWN whatever\r\n", "invalid AddrPort", "invalid AddrPort"},
		{v2 + "rest", "10.0.0.1:5000", "10.0.0.2:80"},
		{proxyV2 + "\x20\x00\x00\x00", "invalid AddrPort", "invalid AddrPort"},
	} {
		h, err := parseProxyHeader([]byte(c.in))
		if err != nil || h.src.String() != c.src || h.dst.String() != c.dst {
			t.Errorf("%q: %+v, %v", c.in, h, err)
		}
		for n := range h.size {
			if _, err := parseProxyHeader([]byte(c.in[:n])); !errors.Is(err, errMore) {
				t.Errorf("%q cut to %d: %v, want errMore", c.in, n, err)
			}
		}
	}
	for _, bad := range []string{"GET / HTTP/1.1\r\n", "PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 70000 1\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", proxyV2 + "\x31\x11\x00\x0c", proxyV2 + "\x21\x11\xff\xff"} {
		if _, err := parseProxyHeader([]byte(bad)); err == nil || errors.Is(err, errMore) {
			t.Errorf("%q: %v, want refused", bad, err)
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\n"))
	f.Add([]byte(proxyV2 + "\x21\x11\x00\x0c0123456789ab"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseProxyHeader(b)
		if err == nil && (h.size <= 0 || h.size > len(b)) {
			t.Fatalf("size %d of %d bytes", h.size, len(b))
		}
		if errors.Is(err, errMore) && len(b) > maxProxyV2 {
			t.Fatalf("still waiting after %d bytes", len(b))
		}
	})
}
