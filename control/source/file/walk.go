// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
)

// walk is one look at everything below the configured paths. What is wrong at one place is said of that place, and what
// was read there before stays: a policy must not go, nor a new one be left out, because something beside it cannot be read.
type walk struct {
	*scan
	before  map[string]*state // what was read until now
	touched map[string]bool
	root    int           // which of the configured paths it is at
	above   []fs.FileInfo // the folders it is in, from that path down
	detours int           // how many folders it came to through links
	unread  []rank        // places that were not read, or not wholly
}

// mostLevels bounds how deep folders are followed.
const mostLevels = 16

func (w *walk) all() {
	for i, path := range w.cfg.Paths {
		w.root = i
		path = filepath.Clean(path)
		if err := w.visit(path, false); err != nil {
			w.unreadable(path, err)
		}
	}
	// Last, for a later path may lead to what could not be read from an earlier one.
	for _, at := range w.unread {
		w.keep(at)
	}
}

// visit reads a folder and those below it, or a single file. It fails if nothing more may be read below this root.
// viaLink says that a link leads here, or to a folder above.
func (w *walk) visit(path string, viaLink bool) error {
	if w.files[path] != nil {
		return nil // it is below an earlier root, too
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		w.missed(path, err)
		return nil
	case info.IsDir():
		return w.folder(path, info, viaLink)
	case len(w.above) == 0:
		w.see(filepath.Dir(path))
	case !isYAML(path):
		return nil
	}
	if len(w.files) >= w.cfg.Limits.Files {
		return fmt.Errorf("there are more than %d files", w.cfg.Limits.Files)
	}
	w.file(path, w.root, info, w.before[path], w.touched[path])
	return nil
}

func (w *walk) folder(path string, info fs.FileInfo, viaLink bool) error {
	if len(w.above) > mostLevels {
		w.unreadable(path, fmt.Errorf("the folder is more than %d levels deep, and is not read", mostLevels))
		return nil
	}
	if viaLink {
		if slices.ContainsFunc(w.above, func(up fs.FileInfo) bool { return os.SameFile(up, info) }) {
			w.trouble(path, source.Warning, "leads back to a folder that it is in, and is not followed")
			return nil
		}
		// Links that lead to each other's folders make more paths than can be walked.
		if w.detours++; w.detours > w.cfg.Limits.Files {
			return fmt.Errorf("links lead to more than %d folders", w.cfg.Limits.Files)
		}
	}
	w.see(path) // before it is listed, so that no change falls between
	entries, err := os.ReadDir(path)
	if err != nil {
		w.missed(path, err) // but for the entries that there are
	}
	w.above = append(w.above, info)
	defer func() { w.above = w.above[:len(w.above)-1] }()
	for _, e := range entries {
		isLink := e.Type()&fs.ModeSymlink != 0
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() && !isYAML(e.Name()) && !isLink {
			continue
		}
		w.linked = w.linked || isLink
		if err := w.visit(filepath.Join(path, e.Name()), viaLink || isLink); err != nil {
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

// missed notes that a path, or a folder's list, could not be had.
func (w *walk) missed(path string, err error) {
	if link, e := os.Readlink(path); e == nil && len(w.above) > 0 {
		w.lost(path, link)
		return
	}
	if len(w.above) > 0 && errors.Is(err, fs.ErrNotExist) {
		return // it is gone since it was listed
	}
	w.unreadable(path, fmt.Errorf("cannot be read: %w", err))
}

// unreadable notes what is wrong with a folder or file. What was read there stays.
func (w *walk) unreadable(path string, err error) {
	w.trouble(path, source.Error, err.Error())
	w.unread = append(w.unread, rank{w.root, path})
}

// lost notes a link that leads nowhere. What was read through it stays.
func (w *walk) lost(path, link string) {
	w.unread = append(w.unread, rank{w.root, path})
	next := &state{rank: rank{w.root, path}, failed: &source.Problem{Place: source.Place{File: path}, Severity: source.Error,
		Message: fmt.Sprintf("is a link to %s, which cannot be reached", link)}}
	if last := w.before[path]; last != nil {
		next.docs = last.docs
	}
	w.files[path] = next.ready()
}

func (w *walk) trouble(path string, severity source.Severity, message string) {
	p := source.Problem{Place: source.Place{File: path}, Severity: severity, Message: message}
	if !slices.Contains(w.troubles, p) { // it is below two roots
		w.troubles = append(w.troubles, p)
	}
}

// keep holds on to what was read at a place, or below it, and was not read now.
func (w *walk) keep(at rank) {
	for path, st := range w.before {
		if below, err := filepath.Rel(at.path, path); w.files[path] != nil || err != nil || !filepath.IsLocal(below) {
			continue
		}
		if st.rank.root == nowhere {
			st = (&state{rank: rank{at.root, path}, docs: st.docs}).ready()
		}
		w.files[path] = st
	}
}
