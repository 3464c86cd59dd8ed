// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"io"
	"time"
)

// A Tunnel is the raw bytes of a stream after CONNECT was accepted. It is an
// alias, so that whoever declares the same interface has the same type.
// Its dynamic type also has SetReadDeadline and SetWriteDeadline.
type Tunnel = interface {
	io.ReadWriteCloser
	CloseWrite() error
}

type tunnel struct{ s *stream }

func (t *tunnel) Read(p []byte) (int, error) { return t.s.Read(p) }

// Write sends p at once: what goes through a tunnel waits for answers.
func (t *tunnel) Write(p []byte) (int, error) { return t.s.send(p, false, true) }

// CloseWrite ends our side; the other one may go on.
func (t *tunnel) CloseWrite() error { return t.s.Finish(nil) }

// Close ends both sides, from any goroutine: what the peer still sends is refused.
func (t *tunnel) Close() error {
	t.s.endIfIdle()
	t.s.Abort(uint32(CodeCancel))
	return nil
}

func (t *tunnel) SetReadDeadline(at time.Time) error { return t.s.SetReadDeadline(at) }

func (t *tunnel) SetWriteDeadline(at time.Time) error { return t.s.SetWriteDeadline(at) }
