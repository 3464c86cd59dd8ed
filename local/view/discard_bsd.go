// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package view

import "golang.org/x/sys/unix"

// discard drops what was written to a terminal and not yet read.
func discard(fd int) {
	const fwrite = 2 // FWRITE of sys/fcntl.h
	_ = unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, fwrite)
}
