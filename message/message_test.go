// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package message

import (
	"strings"
	"testing"
)

func TestHeaderKeepsOrderAndCase(t *testing.T) {
	var h Header
	h.Add("Host-Like", "a")
	h.Add("x-b3-TraceId", "1")
	h.Add("X-Multi", "1")
	h.Add("Accept", "*/*")
	h.Add("x-multi", "2")
	if v, ok := h.Joined("X-MULTI"); !ok || v != "1,2" {
		t.Errorf("Joined = %q, %v; want 1,2", v, ok)
	}
	h.Set("x-Multi", "3")
	if h.Count("x-multi") != 1 || h.At(2) != (Field{"X-Multi", "3"}) {
		t.Errorf("after Set: %v", h.Fields())
	}
	if !h.Delete("ACCEPT") || h.Delete("accept") {
		t.Error("Delete must report what it removed")
	}
	if h.Len() != 3 || h.Get("X-B3-TRACEID") != "1" || h.Has("nope") {
		t.Errorf("left: %v", h.Fields())
	}
}

func TestHeaderReuseDoesNotAllocate(t *testing.T) {
	var h Header
	fill := func() {
		h.Reset()
		for range 8 {
			h.Add("x-name", "value")
		}
		h.Set("x-name", "one")
		_, _ = h.Joined("X-Name")
	}
	fill()
	if n := testing.AllocsPerRun(100, fill); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func FuzzEqualFold(f *testing.F) {
	f.Add("Content-Type", "content-type")
	f.Add("@", "`")
	f.Fuzz(func(t *testing.T, a, b string) {
		lower := func(s string) string {
			return strings.Map(func(r rune) rune {
				if r >= 'A' && r <= 'Z' {
					return r + 'a' - 'A'
				}
				return r
			}, s)
		}
		for _, s := range []string{a, b} {
			for i := 0; i < len(s); i++ {
				if s[i] >= 0x80 {
					return // strings.Map would rewrite invalid UTF-8
				}
			}
		}
		if got, want := EqualFold(a, b), lower(a) == lower(b); got != want {
			t.Errorf("EqualFold(%q, %q) = %v, want %v", a, b, got, want)
		}
	})
}
