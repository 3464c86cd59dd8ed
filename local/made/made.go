// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package made remembers what a program put into the world, and takes it out again.
//
//	made.go        Thing and Journal: recorded before it is made, undone in reverse
//	undo.go        how each kind of thing is undone
//	process_*.go   telling a process of ours from one that got its number later
//
// A journal survives the program: whoever opens it after a crash can undo what it lists. Undoing what was
// never made, or is gone already, is no error.
package made

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Kind is what a Thing is.
type Kind string

// The kinds there are.
const (
	Process   Kind = "process"   // Name: for people; PID and Born once it runs
	Namespace Kind = "namespace" // Name: of a network namespace
	Link      Kind = "link"      // Name: of an interface in our own namespace
	Table     Kind = "table"     // Name: of a table of packet rules in our own namespace
	Setting   Kind = "setting"   // Name: path of a kernel setting; Value: what it was before
	File      Kind = "file"      // Name: its path
	Folder    Kind = "folder"    // Name: its path; removed with all in it
	Keeper    Kind = "keeper"    // the process that keeps the journal: listed so that others can tell whether it lives
)

// A Thing is something made.
type Thing struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`

	Value string `json:"value,omitempty"` // of settings

	// Of processes. Marker is in the process's environment as MELTEMI_MADE, so that one that was
	// started but not yet noted is found all the same.
	Marker string `json:"marker,omitempty"`
	PID    int    `json:"pid,omitempty"`
	Born   string `json:"born,omitempty"`  // tells it from a later process of the same number
	Group  bool   `json:"group,omitempty"` // it leads a process group that goes with it

	Boot string `json:"boot,omitempty"` // the boot it was made in, for what no reboot survives
}

// MarkerVariable is the environment variable that carries a process's Marker.
const MarkerVariable = "MELTEMI_MADE"

// A Journal is a list of things on disk.
type Journal struct {
	path string

	mu     sync.Mutex
	things []Thing
}

// Open reads the journal at path, or begins one.
func Open(path string) (*Journal, error) {
	j := &Journal{path: path}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return j, nil
	case err != nil:
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := json.Unmarshal(b, &j.things); err != nil {
		return nil, fmt.Errorf("journal %s is unreadable: remove what it names by hand, then the file: %w", path, err)
	}
	return j, nil
}

// Record notes t; call it before t is made. A Thing of the same kind and name is replaced.
func (j *Journal) Record(t Thing) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if t.Kind != File && t.Kind != Folder {
		t.Boot = bootID()
	}
	if i := j.indexLocked(t); i >= 0 {
		j.things[i] = t
	} else {
		j.things = append(j.things, t)
	}
	return j.saveLocked()
}

// Forget strikes t out, without undoing it.
func (j *Journal) Forget(t Thing) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := j.indexLocked(t)
	if i < 0 {
		return nil
	}
	j.things = slices.Delete(j.things, i, i+1)
	return j.saveLocked()
}

// Things returns what is listed, oldest first.
func (j *Journal) Things() []Thing {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.things)
}

func (j *Journal) indexLocked(t Thing) int {
	return slices.IndexFunc(j.things, func(o Thing) bool { return o.Kind == t.Kind && o.Name == t.Name })
}

// saveLocked replaces the file as a whole, so that a crash leaves the old list or the new one; an
// empty journal has no file.
func (j *Journal) saveLocked() error {
	if len(j.things) == 0 {
		if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("journal: %w", err)
		}
		return nil
	}
	b, err := json.MarshalIndent(j.things, "", "  ")
	if err != nil {
		return err
	}
	if err := WriteFile(j.path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// tempFile is the pattern of what WriteFile writes for a file before it takes its place.
func tempFile(name string) string { return "." + name + "-*" }

// tempAge is older than anything that WriteFile is still writing.
const tempAge = time.Minute

// Sweep removes from dir what WriteFile, killed at its work, left there.
func Sweep(dir string) error {
	return sweep(filepath.Join(dir, tempFile("*")), tempAge)
}

// Sweep removes the same of a journal whose keeper is dead, or is the caller, however young it is.
func (j *Journal) Sweep() error {
	return sweep(filepath.Join(filepath.Dir(j.path), tempFile(filepath.Base(j.path))), 0)
}

func sweep(pattern string, age time.Duration) error {
	left, err := filepath.Glob(pattern)
	for _, path := range left {
		if info, statErr := os.Stat(path); statErr != nil || time.Since(info.ModTime()) < age {
			continue
		}
		if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// WriteFile puts a file in place as a whole: readers and crashes see the old content or the new.
func WriteFile(path string, content []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempFile(filepath.Base(path)))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
