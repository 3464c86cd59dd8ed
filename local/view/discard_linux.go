// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import "golang.org/x/sys/unix"

// discard drops what was written to a terminal and not yet read.
func discard(fd int) { _ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH) }
