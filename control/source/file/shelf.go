// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// A shelf keeps the last good version of each object in a folder, one small file each, so that it is still known when the
// process starts again. A nil shelf keeps nothing.
type shelf struct {
	dir   string
	known map[source.Key]kept // what is in the folder
	owed  map[source.Key]debt // what is to be changed in it yet
	lost  map[string]error    // files of it that could not be read at the start, and were not replaced since
	// store replaces a file, or removes it if next is nil.
	store func(path string, next *kept) error
}

// debt is a write, or a removal, that went wrong.
type debt struct {
	next *kept
	err  error
}

// kept is one version of an object: the text it was read from.
type kept struct {
	Kind      source.Kind
	Namespace mesh.Namespace
	Name      string
	File      string
	Line      int // of the document
	Since     time.Time
	Text      string // of the document; of the List, for a member of one
}

func (k *kept) key() source.Key {
	return source.Key{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}
}

func newShelf(dir string, store func(string, *kept) error) *shelf {
	return &shelf{dir: dir, store: store, known: map[source.Key]kept{}, owed: map[source.Key]debt{}, lost: map[string]error{}}
}

// openShelf reads what is in dir. What cannot be read is as good as lost, and said.
func openShelf(dir string) *shelf {
	if dir == "" {
		return nil
	}
	s := newShelf(dir, replaceFile)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.lost[dir] = err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(e.Name(), ".json") {
			_ = os.Remove(path) // a write that did not come to its end
			continue
		}
		var k kept
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &k)
		}
		if err != nil || s.path(k.key()) != path {
			s.lost[path] = cmp.Or(err, fmt.Errorf("%s is not what was written there", path))
			continue
		}
		s.known[k.key()] = k
	}
	return s
}

// all are what is kept, in the order of files and lines.
func (s *shelf) all() []kept {
	if s == nil {
		return nil
	}
	var all []kept
	for _, k := range s.known {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b kept) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), a.key().Compare(b.key()))
	})
	return all
}

func (s *shelf) path(k source.Key) string {
	sum := sha256.Sum256([]byte(k.String()))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16])+".json")
}

// keep replaces the version of an object. One that has only moved is in force since it came.
func (s *shelf) keep(k source.Key, h holder, now time.Time) {
	if s == nil {
		return
	}
	next := kept{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name, File: h.file, Line: h.line, Since: now, Text: h.doc.text}
	if was, ok := s.last(k); ok && was.Text == next.Text {
		next.Since = was.Since
		if _, owed := s.owed[k]; !owed && was.File == next.File && was.Line == next.Line {
			return
		}
	}
	s.put(k, &next)
}

func (s *shelf) drop(k source.Key) {
	if s == nil {
		return
	}
	if _, ok := s.last(k); ok {
		s.put(k, nil)
	}
}

// last is the version that is, or is to be, in the folder.
func (s *shelf) last(k source.Key) (kept, bool) {
	if d, owed := s.owed[k]; owed {
		if d.next == nil {
			return kept{}, false
		}
		return *d.next, true
	}
	v, ok := s.known[k]
	return v, ok
}

// put makes next the version in the folder; nil removes it. What goes wrong is owed.
func (s *shelf) put(k source.Key, next *kept) {
	path := s.path(k)
	if err := s.store(path, next); err != nil {
		s.owed[k] = debt{next, err}
		return
	}
	delete(s.owed, k)
	delete(s.lost, path)
	if next == nil {
		delete(s.known, k)
		return
	}
	s.known[k] = *next
}

// retry tries again what went wrong.
func (s *shelf) retry() {
	if s == nil {
		return
	}
	for k, d := range s.owed {
		s.put(k, d.next)
		if again, owed := s.owed[k]; owed { // say what was said: errors may name a temporary file
			again.err = d.err
			s.owed[k] = again
		}
	}
}

// replaceFile replaces a file as a whole, or removes it. It outlives the process; whether it outlives the machine's power
// is left to the file system, for a folder of many files is kept at once.
func replaceFile(path string, next *kept) error {
	if next == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// trouble is what is to be said if versions cannot be kept, or could not be read.
func (s *shelf) trouble() (all []source.Problem) {
	if s == nil {
		return nil
	}
	say := func(format string, args ...any) {
		all = append(all, source.Problem{Place: source.Place{File: s.dir}, Severity: source.Warning, Message: fmt.Sprintf(format, args...)})
	}
	if len(s.lost) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(s.lost)))
		say("the last good versions that were kept here could not all be read at the start (%d could not): %v", len(s.lost), s.lost[first])
	}
	if len(s.owed) > 0 {
		first := slices.MinFunc(slices.Collect(maps.Keys(s.owed)), source.Key.Compare)
		say("the last good versions are not all kept here, so that the next start will not know them, though it is tried again; %d objects, the first of them %s: %v",
			len(s.owed), first, s.owed[first].err)
	}
	return all
}
