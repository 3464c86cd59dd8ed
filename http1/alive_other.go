// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package http1

import "net"

// An idleCheck is known on Linux only; elsewhere a connection closed by its
// server is found out by using it.
type idleCheck struct{}

func (*idleCheck) quiet(net.Conn) bool { return true }
