// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netio

import "net"

func (s *session) splice(_, _ *net.TCPConn) (int64, bool, error) { return 0, false, nil }
