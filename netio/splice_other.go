// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netio

import (
	"net"
	"sync/atomic"
)

func (s *session) splice(_, _ *net.TCPConn, _ *atomic.Int64) (bool, error) { return false, nil }
