// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// forbid gives a folder a mode, and makes the test somebody to whom it applies: for root none does.
func (f folder) forbid(name string, mode os.FileMode) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.Chmod(path, mode); err != nil {
		f.t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		f.t.Cleanup(func() { _ = os.Chmod(path, 0o755) })
		return
	}
	const nobody = 65534
	if err := errors.Join(os.Chmod(filepath.Dir(f.dir), 0o711), os.Chown(f.dir, nobody, -1)); err != nil {
		f.t.Fatal(err)
	}
	runtime.LockOSThread()
	f.t.Cleanup(func() {
		_ = syscall.Setfsuid(0)
		runtime.UnlockOSThread()
	})
	if err := syscall.Setfsuid(nobody); err != nil {
		f.t.Fatal(err)
	}
}
