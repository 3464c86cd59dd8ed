// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package view

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Drawable reports whether f is a terminal to draw on: not one that we are in the background of, which would
// stop us for it.
func Drawable(f *os.File) bool {
	fd := int(f.Fd())
	if _, err := unix.IoctlGetTermios(fd, getTermios); err != nil {
		return false
	}
	front, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err != nil || front == unix.Getpgrp()
}

// keyPause is how long keys waits for one.
const keyPause = 100 * time.Millisecond

// A tty is a terminal that gives us keys as they are typed.
type tty struct {
	fd     int
	before unix.Termios
}

func takeTTY(f *os.File) (*tty, error) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	t := &tty{fd: fd, before: *before}
	ours := *before
	ours.Lflag &^= unix.ICANON | unix.ECHO
	ours.Iflag &^= unix.IXON                                                            // Ctrl-S would freeze us
	ours.Cc[unix.VMIN], ours.Cc[unix.VTIME] = 0, uint8(keyPause/(100*time.Millisecond)) // a read ends by itself
	ours.Cc[unix.VSUSP], ours.Cc[unix.VQUIT] = noKey, noKey                             // they would leave the other screen up
	if _, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil {
		ours.Lflag &^= unix.ISIG // it is not our controlling terminal: there is nobody to send signals to
	}
	return t, unix.IoctlSetTermios(fd, setTermios, &ours)
}

func (t *tty) restore() { _ = unix.IoctlSetTermios(t.fd, setTermios, &t.before) }

// Write writes all of p, and waits for a terminal that has no room.
func (t *tty) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m, err := unix.Write(t.fd, p[n:])
		n += max(m, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			time.Sleep(keyPause / 10)
		case err != nil:
			return n, err
		}
	}
	return n, nil
}

// keys returns what was typed, after at most keyPause.
func (t *tty) keys(ctx context.Context) string {
	b := make([]byte, 64)
	began := time.Now()
	if n, err := unix.Read(t.fd, b); err == nil && n > 0 {
		return string(b[:n])
	}
	// A terminal that cannot be read, or is gone, answers at once.
	if rest := keyPause - time.Since(began); rest > 0 {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
		}
	}
	return ""
}

func (t *tty) size() (width, height int, err error) {
	w, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, err
	}
	return int(w.Col), int(w.Row), nil
}
