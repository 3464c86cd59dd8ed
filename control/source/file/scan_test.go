// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"os"
	"path/filepath"
	"testing"
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
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(f.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(".one", "..data")
	link("..data/a.yaml", "a.yaml")
	s := newScan(f.source().cfg, f.source().parser, nil)
	s.look(nil)
	f.remove("..data")
	link(".two", "..data")
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
