// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/meltemi/meltemi/local/made"
)

// writeSample copies what is in files to dir. What is there already is never overwritten: kept names files
// that differ from the sample's.
func writeSample(files fs.FS, dir string) (kept []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		want, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, name)
		got, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := made.WriteFile(path, want, 0o644); err != nil {
				return nil, fmt.Errorf("configuration: %w", err)
			}
		case err != nil:
			return nil, fmt.Errorf("configuration: %w", err)
		case !bytes.Equal(got, want):
			kept = append(kept, name)
		}
	}
	return kept, nil
}

// copyConfiguration copies the YAML of paths into dir, for a check that changes it.
func copyConfiguration(paths []string, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if ext := filepath.Ext(path); ext != ".yaml" && ext != ".yml" {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil || rel == "." {
				rel = filepath.Base(path)
			}
			to := filepath.Join(dir, fmt.Sprint(i), rel)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			return os.WriteFile(to, b, 0o644)
		})
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
	}
	return nil
}
