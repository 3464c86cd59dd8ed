// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lock makes sure that one Up runs per state folder. The lock goes with the process, however that ends.
func (f folder) lock() (*os.File, error) {
	path := filepath.Join(f.state(), "lock")
	l, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	err = syscall.Flock(int(l.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return l, nil
	}
	_ = l.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		owner := "another process"
		if m, err := f.running(); err == nil {
			owner = fmt.Sprintf("process %d", m.PID)
		}
		return nil, fmt.Errorf("a mesh already runs on state folder %s (%s): stop it, or name another folder with --dir", f.dir, owner)
	}
	return nil, fmt.Errorf("state folder: lock: %w", err)
}

// lockFolder waits until nobody else of ours has locked dir, which stays as it is.
func lockFolder(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return d, nil
}
