// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import "golang.org/x/sys/unix"

const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
	noKey      = 0 // _POSIX_VDISABLE
)

// discard drops what was written and not yet read.
func (t *tty) discard() { _ = unix.IoctlSetInt(t.fd, unix.TCFLSH, unix.TCOFLUSH) }
