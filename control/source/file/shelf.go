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
	dir    string
	known  map[source.Key]kept
	failed error // the last write or removal, if that went wrong
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

// openShelf reads what is in dir. What cannot be read is as good as lost, and said.
func openShelf(dir string) *shelf {
	if dir == "" {
		return nil
	}
	s := &shelf{dir: dir, known: map[source.Key]kept{}}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.failed = err
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
			s.failed = cmp.Or(err, fmt.Errorf("%s is not what was written there", path))
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
	if was, ok := s.known[k]; ok && was.Text == next.Text {
		next.Since = was.Since
		if was.File == next.File && was.Line == next.Line {
			return
		}
	}
	s.failed = s.write(s.path(k), next)
	s.known[k] = next
}

func (s *shelf) drop(k source.Key) {
	if s == nil {
		return
	}
	if _, ok := s.known[k]; !ok {
		return
	}
	delete(s.known, k)
	if err := os.Remove(s.path(k)); !errors.Is(err, fs.ErrNotExist) {
		s.failed = err
	}
}

// write replaces a file as a whole. It outlives the process; whether it outlives the machine's power is left to the
// file system, for a folder of many files is kept at once.
func (s *shelf) write(path string, k kept) error {
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, "new-*")
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

// trouble is what is to be said if versions cannot be kept.
func (s *shelf) trouble() []source.Problem {
	if s == nil || s.failed == nil {
		return nil
	}
	return []source.Problem{{Place: source.Place{File: s.dir}, Severity: source.Warning,
		Message: fmt.Sprintf("the last good versions are not all kept here, and are lost when the control plane ends: %v", s.failed)}}
}
