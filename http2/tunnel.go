// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import "io"

// A Tunnel is the raw bytes of a stream after CONNECT was accepted. It is an
// alias, so that whoever declares the same interface has the same type.
// Its dynamic type also has SetReadDeadline and SetWriteDeadline.
type Tunnel = interface {
	io.ReadWriteCloser
	CloseWrite() error
}
