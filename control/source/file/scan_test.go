// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/control/source"
)

func TestFileBelowTwoFoldersIsReadOnce(t *testing.T) {
	f := newFolder(t)
	f.write("in/a.yaml", vs("a", "one"))
	cfg := Defaults(filepath.Join(f.dir, "in"), f.dir)
	cfg.Limits = cfg.Limits.withDefaults()
	b := newScan(cfg, f.source().parser, nil).look(nil)
	if len(b.Put) != 1 || len(b.Report) != 0 {
		t.Fatalf("%d objects, and %+v; want one and nothing to report", len(b.Put), b.Report)
	}
}

// Volumes of Kubernetes show files through a link in a hidden name, which is replaced.
func TestLinkInAHiddenNameIsReplaced(t *testing.T) {
	f := newFolder(t)
	f.write(".one/a.yaml", vs("a", "one"))
	f.write(".two/a.yaml", vs("a", "two"))
	f.link(".one", "..data")
	f.link("..data/a.yaml", "a.yaml")
	s := newScan(f.source().cfg, f.source().parser, nil)
	s.look(nil)
	then := time.Unix(1e9, 0) // a clock ticks but every few milliseconds: both may well be of one time, and are of one size
	for _, name := range []string{".one/a.yaml", ".two/a.yaml"} {
		if err := os.Chtimes(filepath.Join(f.dir, name), then, then); err != nil {
			t.Fatal(err)
		}
	}
	s.look(nil)
	f.remove("..data")
	f.link(".two", "..data")
	if b := s.look(map[string]bool{filepath.Join(f.dir, "..data"): true}); len(b.Put) != 1 {
		t.Fatalf("a link that was replaced gave %+v", b)
	}
}

// One file may be read by several names; a change is reported by one of them.
func TestLinkToAFileBesideIt(t *testing.T) {
	f := newFolder(t)
	f.write("b.yaml", vs("b", "one"))
	if err := os.Symlink("b.yaml", filepath.Join(f.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	s := newScan(f.source().cfg, f.source().parser, nil)
	s.look(nil)
	f.write("b.yaml", vs("b", "three"))
	if b := s.look(map[string]bool{filepath.Join(f.dir, "b.yaml"): true}); len(b.Put) != 1 {
		t.Fatalf("a file that is read by another name gave %+v", b)
	}
}

// What was kept stays while the folder that it came from cannot be read, however often one looks.
func TestKeptVersionsOfAFolderThatCannotBeRead(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", vs("a", "one"))
	f.write("b.yaml", vs("b", "one"))
	cfg := f.source().cfg
	cfg.Keep = t.TempDir()
	newScan(cfg, f.source().parser, nil).look(nil)

	bounded := cfg
	bounded.Limits.Files = 1
	s := newScan(bounded, f.source().parser, nil)
	if b := s.recall(); len(b.Put) != 2 {
		t.Fatalf("kept is %+v, want both objects", b.Put)
	}
	for range 2 {
		if b := s.look(nil); len(b.Delete)+len(b.Put) != 0 {
			t.Fatalf("a folder with too many files gave %+v, want what was kept", b)
		}
	}
	f.write("a.yaml", vs("b", "two"))
	if b := s.look(map[string]bool{filepath.Join(f.dir, "a.yaml"): true}); len(b.Delete) != 1 || len(b.Put) != 1 {
		t.Fatalf("a file that claims what another holds gave %+v; want its own object deleted, and the other one its own", b)
	}
	f.remove("b.yaml")
	if b := s.look(nil); len(b.Delete)+len(b.Put) != 0 || len(b.Report) == 0 {
		t.Fatalf("the other file is gone, and gave %+v; want no change, and no trouble any more", b)
	}
}

func TestWhatIsNoticedBesidesAnEditedFile(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", vs("a", "one"))
	f.write("b.yaml", vs("b", "one"))
	s := newScan(f.source().cfg, f.source().parser, nil)
	s.look(nil)
	at := func(names ...string) map[string]bool {
		touched := map[string]bool{}
		for _, name := range names {
			touched[filepath.Join(f.dir, name)] = true
		}
		return touched
	}
	f.write("a.yaml", vs("a", "three"))
	f.write("b.yaml", vs("b", "three"))
	if b := s.look(at("a.yaml", ".a.yaml.swp")); len(b.Put) != 1 {
		t.Fatalf("one file that was reported gave %+v", b)
	}
	f.write("new/c.yaml", vs("c", "one"))
	if b := s.look(at("a.yaml", "new")); len(b.Put) != 2 {
		t.Fatalf("a new folder gave %+v, want what is in it, and the file that changed unnoticed", b)
	}
	f.remove("b.yaml")
	if b := s.look(at("b.yaml")); len(b.Delete) != 1 {
		t.Fatalf("a file that is gone gave %+v", b)
	}
	f.remove("a.yaml")
	s.walked = s.walked.Add(-s.cfg.Rescan)
	f.write("new/c.yaml", vs("c", "two"))
	if b := s.look(at("new/c.yaml")); len(b.Delete) != 1 {
		t.Fatalf("a look when all is due gave %+v, want what changed unnoticed, too", b)
	}
}

// What is configured is meant to be there: a path that is gone, or cannot be reached, keeps what it held.
func TestConfiguredPathThatIsGone(t *testing.T) {
	for _, c := range []struct {
		name, path string
		gone       func(f folder)
	}{
		{"a folder removed", "in", func(f folder) { f.remove("in") }},
		{"a folder whose parent is removed", "in/deep", func(f folder) { f.remove("in") }},
		{"a folder that is a link to itself", "in", func(f folder) { f.remove("in"); f.link("in", "in") }},
		{"a file removed", "in/a.yaml", func(f folder) { f.remove("in/a.yaml") }},
		{"a file that is a link to itself", "in/a.yaml", func(f folder) { f.remove("in/a.yaml"); f.link("a.yaml", "in/a.yaml") }},
		{"a file whose folder is a file", "in/a.yaml", func(f folder) { f.remove("in"); f.write("in", "") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolder(t)
			f.write("in/a.yaml", vs("a", "one"))
			f.write("in/deep/a.yaml", vs("a", "one"))
			cfg := Defaults(filepath.Join(f.dir, c.path))
			cfg.Limits, cfg.Keep = cfg.Limits.withDefaults(), t.TempDir()
			s := newScan(cfg, f.source().parser, nil)
			if b := s.look(nil); len(b.Put) != 1 {
				t.Fatalf("first look: %+v", b)
			}
			c.gone(f)
			for range 2 {
				b := s.look(nil)
				wantNothingBut(t, b)
				if p := s.claims.reported[cfg.Paths[0]]; len(p) != 1 || p[0].Severity != source.Error {
					t.Errorf("%v is said of it, want one error", p)
				}
			}
			s = newScan(cfg, f.source().parser, nil) // the process starts again
			if b := s.recall(); len(b.Put) != 1 {
				t.Errorf("kept is %+v, want the object", b)
			}
			for range 2 {
				wantNothingBut(t, s.look(nil))
			}
			f.remove("in")
			if filepath.Ext(c.path) == "" {
				f.write(c.path+"/b.yaml", vs("b", "two"))
			} else {
				f.write(c.path, vs("b", "two"))
			}
			if b := s.look(nil); len(b.Delete) != 1 || len(b.Put) != 1 {
				t.Errorf("with other content it gave %+v, want that in place of the former", b)
			}
		})
	}
}

// wantNothingBut wants some objects to be put, and none to be deleted.
func wantNothingBut(t *testing.T, b source.Batch, puts ...string) {
	t.Helper()
	var names []string
	for _, p := range b.Put {
		names = append(names, p.Entry.ObjectKey().Name)
	}
	if !slices.Equal(names, puts) || len(b.Delete) > 0 {
		t.Errorf("put %v, deleted %v; want put %v and nothing deleted", names, b.Delete, puts)
	}
}

// A folder in which something is wrong holds up nothing that comes after it.
func TestFolderThatCannotBeRead(t *testing.T) {
	deep := "lost" + strings.Repeat("/deep", mostLevels)
	for _, c := range []struct {
		name, about string
		severity    source.Severity
		breaks      func(f folder)
	}{
		{"a link to its own folder", "lost/up", source.Warning, func(f folder) { f.link(".", "lost/up") }},
		{"a link to a folder above", "lost/up", source.Warning, func(f folder) { f.link("..", "lost/up") }},
		{"too deep", deep, source.Error, func(f folder) { f.write(deep+"/c.yaml", vs("c", "one")) }},
		{"not listed", "lost", source.Error, func(f folder) { f.forbid("lost", 0o311) }},
		{"not entered", "lost/a.yaml", source.Error, func(f folder) { f.forbid("lost", 0o644) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolder(t)
			f.write("lost/a.yaml", vs("a", "one"))
			s := newScan(f.source().cfg, f.source().parser, nil)
			wantNothingBut(t, s.look(nil), "a")
			c.breaks(f)
			f.write("new.yaml", vs("new", "one"))
			f.write("other/new.yaml", vs("newer", "one"))
			wantNothingBut(t, s.look(nil), "new", "newer")
			if len(s.claims.reported) != 1 {
				t.Errorf("said is %v, want one", s.claims.reported)
			}
			if p := s.claims.reported[filepath.Join(f.dir, c.about)]; len(p) != 1 || p[0].Severity != c.severity {
				t.Errorf("said is %v, want one %v about %s", s.claims.reported, c.severity, c.about)
			}
			wantNothingBut(t, s.look(nil))
			// So it is at a first start.
			b := newScan(f.source().cfg, f.source().parser, nil).look(nil)
			if len(b.Put) < 2 || b.Put[len(b.Put)-2].Entry.ObjectKey().Name != "new" {
				t.Errorf("a first look gave %+v, want what comes after the folder, too", b.Put)
			}
		})
	}
}

// Folders with links to each other make more paths than anybody can walk.
func TestMazeOfLinks(t *testing.T) {
	f := newFolder(t)
	const folders = 9
	for i := range folders {
		f.write(fmt.Sprintf("%d/a.yaml", i), "")
		for k := range folders {
			f.link(fmt.Sprintf("../%d", k), fmt.Sprintf("%d/to%d", i, k))
		}
	}
	cfg := f.source().cfg
	cfg.Limits.Files = 200
	s := newScan(cfg, f.source().parser, nil)
	s.look(nil)
	if p := s.claims.reported[f.dir]; len(p) != 1 || !strings.Contains(p[0].Message, "there are more than 200 files") {
		t.Errorf("said is %v, want that there is too much", p)
	}
	for i := range folders {
		f.remove(fmt.Sprintf("%d/a.yaml", i))
	}
	s.look(nil)
	if p := s.claims.reported[f.dir]; len(p) != 1 || !strings.Contains(p[0].Message, "links lead to more than 200 folders") {
		t.Errorf("said is %v, want that there is too much", p)
	}
}

func (f folder) link(to, name string) {
	f.t.Helper()
	if err := os.Symlink(to, filepath.Join(f.dir, name)); err != nil {
		f.t.Fatal(err)
	}
}
