// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package http1

import "net"

// A lazyReader is known on Linux only; elsewhere a waiting connection holds a buffer.
type lazyReader struct{}

func newLazyReader(net.Conn) *lazyReader { return nil }

func (*lazyReader) read() (*buffer, int, error) { panic("http1: no lazy reader on this system") }

// An idleCheck is known on Linux only; elsewhere a connection closed by its
// server is found out by using it.
type idleCheck struct{}

func (*idleCheck) quiet(net.Conn) bool { return true }
