// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control/source"
)

// scan is what a source knows of its folders. It belongs to one goroutine.
type scan struct {
	cfg    Config
	parser *parser
	watch  func(dir string) error // nil if changes cannot be watched

	files   map[string]*state
	order   []string // of the files, as they rank
	watched map[string]bool
	claims  claims

	// unsure: a file has just become empty. blind: changes are not reported for some folder.
	unsure, blind bool
}

// state is one file as it was read last.
type state struct {
	stamp  stamp
	docs   []placed
	failed *source.Problem // why it could not be read; docs are those of before
	empty  bool            // found empty once
}

// placed is a document and where it begins.
type placed struct {
	*document
	line int
}

// stamp tells whether a file must be read again.
type stamp struct {
	modified time.Time
	size     int64
}

func newScan(cfg Config, p *parser, watch func(string) error) *scan {
	return &scan{cfg: cfg, parser: p, watch: watch, files: map[string]*state{}, watched: map[string]bool{}, claims: newClaims(cfg.Good, openShelf(cfg.Keep))}
}

// recall is what was good when the process that kept it ended.
func (s *scan) recall() (b source.Batch) {
	b, s.files = s.claims.recall(s.parser)
	return b
}

// look reads what has changed; files in touched are read whatever their time and size say.
func (s *scan) look(touched map[string]bool) source.Batch {
	s.unsure, s.blind = false, s.watch == nil
	s.order = s.order[:0]
	before := s.files
	s.files = make(map[string]*state, len(before))
	var troubles []source.Problem
	for _, root := range s.cfg.Paths {
		if err := s.walk(filepath.Clean(root), 0, true, before, touched); err != nil {
			troubles = append(troubles, source.Problem{
				Place: source.Place{File: root}, Severity: source.Error, Message: err.Error(),
			})
			s.keep(root, before)
		}
	}
	return s.claims.settle(s.order, s.files, troubles)
}

// keep holds on to the files below a folder that could not be read, unless it is gone.
func (s *scan) keep(root string, before map[string]*state) {
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return
	}
	for path, st := range before {
		if _, read := s.files[path]; !read && strings.HasPrefix(path, filepath.Clean(root)+string(filepath.Separator)) {
			s.files[path] = st
			s.order = append(s.order, path)
		}
	}
}

// lost notes a link that leads nowhere. What was read through it stays.
func (s *scan) lost(path, link string, before map[string]*state) {
	for p, st := range before {
		if strings.HasPrefix(p, path+string(filepath.Separator)) {
			s.files[p] = st
			s.order = append(s.order, p)
		}
	}
	next := &state{failed: &source.Problem{Place: source.Place{File: path}, Severity: source.Error,
		Message: fmt.Sprintf("is a link to %s, which cannot be reached", link)}}
	if last := before[path]; last != nil {
		next.docs = last.docs
	}
	s.files[path] = next
	s.order = append(s.order, path)
}

// mostLevels bounds how deep folders are followed, for a symbolic link may lead upwards.
const mostLevels = 16

// walk reads a folder and those below it, or a single file.
func (s *scan) walk(path string, depth int, root bool, before map[string]*state, touched map[string]bool) error {
	info, err := os.Stat(path)
	if err != nil {
		if root {
			return fmt.Errorf("cannot be read: %w", err)
		}
		if link, err := os.Readlink(path); err == nil {
			s.lost(path, link, before)
		}
		return nil // else it is gone since it was listed
	}
	if !info.IsDir() {
		if root {
			s.see(filepath.Dir(path))
		}
		if root || isYAML(path) {
			return s.file(path, info, before[path], touched[path])
		}
		return nil
	}
	if depth > mostLevels {
		return fmt.Errorf("the folder %s is deeper than %d levels; does a link lead upwards?", path, mostLevels)
	}
	s.see(path) // before it is listed, so that no change falls between
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("the folder %s cannot be read: %w", path, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() && !isYAML(e.Name()) && e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		if err := s.walk(filepath.Join(path, e.Name()), depth+1, false, before, touched); err != nil {
			return err
		}
	}
	return nil
}

func isYAML(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(filepath.Base(name), ".")
	}
	return false
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
func (s *scan) file(path string, info fs.FileInfo, last *state, touched bool) error {
	if len(s.files) >= s.cfg.Limits.Files {
		return fmt.Errorf("there are more than %d files", s.cfg.Limits.Files)
	}
	s.order = append(s.order, path)
	now := stamp{info.ModTime(), info.Size()}
	if last != nil && last.stamp == now && !touched && !last.empty {
		s.files[path] = last
		return nil
	}
	next := &state{stamp: now}
	s.files[path] = next
	data, err := s.read(path)
	switch {
	case err != nil:
		next.failed = &source.Problem{Place: source.Place{File: path}, Severity: source.Error, Message: err.Error()}
		next.stamp = stamp{} // try again at the next look
		if last != nil {
			next.docs = last.docs
		}
	case len(data) == 0 && last != nil && len(last.docs) > 0 && !last.empty:
		next.docs, next.empty = last.docs, true
		s.unsure = true
	default:
		next.docs = s.documents(data, last)
	}
	return nil
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
