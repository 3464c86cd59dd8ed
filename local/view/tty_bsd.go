// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package view

import "golang.org/x/sys/unix"

const (
	getTermios = unix.TIOCGETA
	setTermios = unix.TIOCSETA
	noKey      = 0xff // _POSIX_VDISABLE
)

// discard drops what was written and not yet read.
func (t *tty) discard() {
	const fwrite = 2 // FWRITE of sys/fcntl.h
	_ = unix.IoctlSetPointerInt(t.fd, unix.TIOCFLUSH, fwrite)
}
