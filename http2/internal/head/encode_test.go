// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package head

import (
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// What the encoder writes a textbook decoder reads, whatever is indexed, evicted
// or resized on the way.
func FuzzEncoder(f *testing.F) {
	f.Add("a 1 b 2 a 1 a 1 a 1 :path /x :path /x :path /x")
	f.Add(strings.Repeat("x-a 1 ", 10) + strings.Repeat("k ", 4000))
	f.Add("! 0 x-a 1 x-a 1 x-a 1 ! 900 x-a 1 x-a 1 ! 9999 x-a 1")
	f.Fuzz(func(t *testing.T, script string) {
		words := strings.Split(script, " ")
		enc := NewEncoder()
		dec := hpack.NewDecoder(DefaultTable, nil)
		for len(words) >= 2 {
			if words[0] == "!" {
				n := min(len(words[1])*57, 8000)
				enc.Resize(n)
				dec.SetAllowedMaxDynamicTableSize(uint32(min(n, DefaultTable)))
				words = words[2:]
				continue
			}
			block := enc.begin(nil)
			var want []string
			for range min(len(words)/2, 1+len(words[0])%7) {
				if words[0] == "!" {
					break
				}
				block = enc.field(block, words[0], words[1])
				want = append(want, words[0], words[1])
				words = words[2:]
			}
			fields, err := dec.DecodeFull(block)
			if err != nil {
				t.Fatalf("%q: %v", want, err)
			}
			_ = dec.Close()
			for i, h := range fields {
				if h.Name != want[2*i] || h.Value != want[2*i+1] {
					t.Fatalf("field %d is %q %q, want %q %q", i, h.Name, h.Value, want[2*i], want[2*i+1])
				}
			}
			if 2*len(fields) != len(want) {
				t.Fatalf("%d fields, want %d", len(fields), len(want)/2)
			}
		}
	})
}
