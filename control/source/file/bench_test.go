// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkEdited looks at one file that was saved, among objects that stand in one other file or in one file each.
func BenchmarkEdited(b *testing.B) {
	for _, objects := range []int{100, 8000} {
		for _, single := range []bool{false, true} {
			b.Run(fmt.Sprintf("objects=%d/files=%v", objects, map[bool]int{false: 2, true: objects}[single]), func(b *testing.B) {
				dir := b.TempDir()
				var rest strings.Builder
				for i := range objects - 1 {
					text := vs(fmt.Sprint("v", i), "host")
					if single {
						save(b, filepath.Join(dir, fmt.Sprintf("v%d.yaml", i)), text)
					}
					rest.WriteString("---\n" + text)
				}
				if !single {
					save(b, filepath.Join(dir, "rest.yaml"), rest.String())
				}
				chosen := filepath.Join(dir, "chosen.yaml")
				save(b, chosen, vs("chosen", "host"))
				s, err := New(Defaults(dir))
				if err != nil {
					b.Fatal(err)
				}
				scan := newScan(s.cfg, s.parser, func(string) error { return nil })
				if got := len(scan.look(nil).Put); got != objects {
					b.Fatalf("%d objects", got)
				}
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					n++
					save(b, chosen, vs("chosen", fmt.Sprint("host", n)))
					if got := scan.look(map[string]bool{chosen: true}); len(got.Put) != 1 {
						b.Fatalf("%d objects changed", len(got.Put))
					}
				}
			})
		}
	}
}

func save(b *testing.B, path, text string) {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}
