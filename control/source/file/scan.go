// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control/source"
)

// scan is what a source knows of its folders. It belongs to one goroutine.
type scan struct {
	cfg    Config
	parser *parser
	watch  func(dir string) error // nil if changes cannot be watched

	files  map[string]*state
	claims claims

	troubles []source.Problem // with folders, and with files that cannot even be found out about

	walked time.Time       // when all folders were looked through last
	linked bool            // some file or folder is a link: whatever changes may change others
	hollow map[string]bool // files that have just become empty
	blind  bool            // changes are not reported for some folder
}

// state is one file as it was read last.
type state struct {
	rank   rank
	info   fs.FileInfo // of the file when it was read; nil: it must be read again
	docs   []placed
	all    []placed        // docs with the members of Lists
	vague  []placed        // of all: those whose object cannot be told
	failed *source.Problem // why it could not be read; docs are those of before
	empty  bool            // found empty once
}

// placed is a document and where it begins.
type placed struct {
	*document
	line int
}

// rank is where a file stands among all: by folder as they are configured, then as a folder is walked.
type rank struct {
	root int
	path string
}

// nowhere is the root of files that no walk has come to yet.
const nowhere = -1

func (a rank) compare(b rank) int {
	if a.root != b.root {
		return cmp.Compare(a.root, b.root)
	}
	for i := range min(len(a.path), len(b.path)) {
		x, y := a.path[i], b.path[i]
		switch {
		case x == y:
		case x == filepath.Separator:
			return -1
		case y == filepath.Separator:
			return 1
		default:
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(len(a.path), len(b.path))
}

// unread reports whether a file must be read again: it has changed, or another one is in its place, which may have the
// time and size of the first.
func (st *state) unread(now fs.FileInfo) bool {
	was := st.info
	return was == nil || !os.SameFile(was, now) || !was.ModTime().Equal(now.ModTime()) || was.Size() != now.Size()
}

func newScan(cfg Config, p *parser, watch func(string) error) *scan {
	return &scan{
		cfg: cfg, parser: p, watch: watch, files: map[string]*state{}, hollow: map[string]bool{},
		claims: newClaims(cfg.Good, openShelf(cfg.Keep)),
	}
}

// recall is what was good when the process that kept it ended.
func (s *scan) recall() (b source.Batch) {
	b, s.files = s.claims.recall(s.parser)
	return b
}

// look reads what has changed; files in touched are read whatever their time and size say. If they are all that was
// reported, nothing else is looked at, but that everything is every now and then.
func (s *scan) look(touched map[string]bool) source.Batch {
	if len(touched) > 0 && time.Since(s.walked) < s.cfg.Rescan {
		if changed, ok := s.glance(touched); ok {
			return s.claims.settle(changed, s.files, s.troubles)
		}
	}
	s.walked, s.linked, s.blind = time.Now(), false, s.watch == nil
	before := s.files
	s.files = make(map[string]*state, len(before))
	clear(s.hollow)
	s.troubles = nil
	w := walk{scan: s, before: before, touched: touched}
	w.all()
	var changed []string
	for path, st := range s.files {
		if before[path] != st {
			changed = append(changed, path)
		}
	}
	for path := range before {
		if s.files[path] == nil {
			changed = append(changed, path)
		}
	}
	return s.claims.settle(changed, s.files, s.troubles)
}

// glance reads the files in touched and nothing else. It is not ok if anything but the content of known files may have changed.
func (s *scan) glance(touched map[string]bool) (changed []string, ok bool) {
	if s.linked {
		return nil, false
	}
	infos := make(map[string]fs.FileInfo, len(touched))
	for path := range touched {
		info, err := os.Lstat(path)
		switch {
		case s.files[path] != nil && err == nil && info.Mode().IsRegular():
			infos[path] = info
		case s.files[path] == nil && s.isAside(path) && (err != nil || info.Mode().IsRegular()):
		default:
			return nil, false
		}
	}
	for path, info := range infos {
		last := s.files[path]
		if s.file(path, last.rank.root, info, last, true); s.files[path] != last {
			changed = append(changed, path)
		}
	}
	return changed, true
}

// isAside reports whether path is that of a file which is never read, such as editors write before they replace another.
func (s *scan) isAside(path string) bool {
	name := filepath.Base(path)
	return (strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~")) &&
		!slices.ContainsFunc(s.cfg.Paths, func(root string) bool { return filepath.Clean(root) == path })
}

// see asks for changes in a folder to be reported. A folder that was removed and made again must be asked for again.
func (s *scan) see(dir string) {
	if s.watch == nil {
		return
	}
	if err := s.watch(dir); err != nil {
		s.blind = true
	}
}

// file reads one file if it has changed.
func (s *scan) file(path string, root int, info fs.FileInfo, last *state, touched bool) {
	if last != nil && !last.unread(info) && last.rank.root == root && !touched && !last.empty {
		s.files[path] = last
		return
	}
	next := &state{rank: rank{root, path}, info: info}
	s.files[path] = next
	delete(s.hollow, path)
	data, err := s.read(path)
	switch {
	case err != nil:
		next.failed = &source.Problem{Place: source.Place{File: path}, Severity: source.Error, Message: err.Error()}
		next.info = nil // try again at the next look
		if last != nil {
			next.docs = last.docs
		}
	case len(data) == 0 && last != nil && len(last.docs) > 0 && !last.empty:
		next.docs, next.empty = last.docs, true
		s.hollow[path] = true
	default:
		next.docs = s.documents(data, last)
	}
	next.ready()
}

// ready completes a state of which docs are known.
func (st *state) ready() *state {
	st.all = flat(st.docs)
	for _, d := range st.all {
		if d.hint != nil {
			st.vague = append(st.vague, d)
		}
	}
	return st
}

func (s *scan) read(path string) ([]byte, error) {
	// To open a named pipe waits for its writer, which may never come.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(s.cfg.Limits.FileBytes)+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if len(data) > s.cfg.Limits.FileBytes {
		return nil, fmt.Errorf("is larger than %d bytes; cut it into several files", s.cfg.Limits.FileBytes)
	}
	return data, nil
}

// documents reads the documents of a file; those that were there before are not read again.
func (s *scan) documents(data []byte, last *state) []placed {
	known := map[string]*document{}
	if last != nil {
		for _, d := range last.docs {
			known[d.text] = d.document
		}
	}
	var docs []placed
	for _, p := range split(data) {
		d := known[p.text]
		if d == nil {
			d = s.parser.parse(p.text)
		}
		delete(known, p.text) // two documents of one text must not share their claim
		docs = append(docs, placed{d, p.line})
	}
	return docs
}
