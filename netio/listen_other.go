// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netio

import "fmt"

func setOptions(_ uintptr, _ string, opt SocketOptions) error {
	return fmt.Errorf("socket options %+v: %w", opt, ErrUnsupported)
}
