// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/source"
)

// shelved is a scan with a shelf.
func shelved(f folder, dir string) *scan {
	cfg := f.source().cfg
	cfg.Keep = dir
	return newScan(cfg, f.source().parser, nil)
}

// block puts something in the way of a file, so that it can be neither replaced nor removed.
func block(t *testing.T, path string) (unblock func()) {
	t.Helper()
	was, err := os.ReadFile(path)
	kept := err == nil
	_ = os.Remove(path)
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if kept {
			if err := os.WriteFile(path, was, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func wantWarnings(t *testing.T, s *scan, parts ...string) {
	t.Helper()
	got := s.claims.reported[s.cfg.Keep]
	if len(got) != len(parts) {
		t.Fatalf("said is %v, want %d warnings", got, len(parts))
	}
	for i, p := range got {
		if !strings.Contains(p.Message, parts[i]) {
			t.Errorf("said is %v, want %s", p, parts[i])
		}
	}
}

// That one version could not be kept is said until it is, whatever else is kept, and it is tried again.
func TestVersionThatCannotBeKept(t *testing.T) {
	f := newFolder(t)
	s := shelved(f, t.TempDir())
	unblock := block(t, s.claims.shelf.path(key("a")))
	f.write("a.yaml", vs("a", "one"))
	s.look(nil)
	wantWarnings(t, s, "1 objects, the first of them VirtualService/default/a")
	f.write("b.yaml", vs("b", "one"))
	if b := s.look(nil); len(b.Report) != 0 {
		t.Errorf("said is %v again, want what was said once", b.Report)
	}
	f.remove("b.yaml") // which can be removed
	s.look(nil)
	wantWarnings(t, s, "the first of them VirtualService/default/a")
	unblock()
	s.look(nil)
	wantWarnings(t, s)
	if b := shelved(f, s.cfg.Keep).recall(); len(b.Put) != 1 {
		t.Errorf("kept is %+v, want the object", b)
	}
}

// A version that could not be removed is removed later, unless its object has come back.
func TestVersionThatCannotBeRemoved(t *testing.T) {
	for _, back := range []bool{false, true} {
		f := newFolder(t)
		s := shelved(f, t.TempDir())
		f.write("a.yaml", vs("a", "one"))
		s.look(nil)
		unblock := block(t, s.claims.shelf.path(key("a")))
		f.remove("a.yaml")
		s.look(nil)
		f.write("b.yaml", vs("b", "one"))
		s.look(nil)
		wantWarnings(t, s, "the first of them VirtualService/default/a")
		unblock()
		want := []source.Key{key("b")}
		if back {
			f.write("a.yaml", vs("a", "one"))
			want = []source.Key{key("a"), key("b")}
		}
		s.look(nil)
		wantWarnings(t, s)
		var got []source.Key
		for _, k := range openShelf(s.cfg.Keep).all() {
			got = append(got, k.key())
		}
		if len(got) != len(want) || got[0] != want[0] {
			t.Errorf("kept is %v, want %v", got, want)
		}
	}
}

// What could not be read at the start is said until it is replaced.
func TestKeptVersionThatIsDamaged(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", vs("a", "one"))
	f.write("b.yaml", vs("b", "one"))
	s := shelved(f, t.TempDir())
	s.look(nil)
	if err := os.WriteFile(s.claims.shelf.path(key("a")), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.write("a.yaml", "]")
	f.write("b.yaml", vs("b", "two"))
	s = shelved(f, s.cfg.Keep)
	s.recall()
	s.look(nil)
	wantWarnings(t, s, "could not all be read at the start (1 could not)")
	f.write("a.yaml", vs("a", "three"))
	s.look(nil)
	wantWarnings(t, s)
}
