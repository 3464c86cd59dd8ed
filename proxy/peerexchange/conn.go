// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package peerexchange

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
)

// A Conn is a TLS connection whose peer begins with a preamble. Like any connection it is read by one goroutine at a time.
type Conn struct {
	*tls.Conn
	heard func(preamble []byte)
	buf   []byte // what was read and not handed over
	err   error  // that came behind buf
	over  bool   // the preamble has passed, or there is none
}

// Begin writes our preamble to conn and returns conn without the peer's. Both sides have agreed on ALPN.
func Begin(conn *tls.Conn, preamble []byte) (*Conn, error) {
	_, err := conn.Write(preamble)
	return &Conn{Conn: conn}, err
}

// Heard sets what is called, once and from within Read, with what the peer's preamble holds, for Parse and not to be kept,
// or with nil if the peer begins with something else. It is not called if the peer never begins. Set it before the first Read.
func (c *Conn) Heard(f func(preamble []byte)) { c.heard = f }

// Read takes the peer's preamble out. A connection that begins otherwise is read as it is.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.over {
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	switch {
	case len(c.buf) > 0:
		n := copy(p, c.buf)
		c.buf = c.buf[n:]
		return n, nil
	case c.err != nil:
		err := c.err
		c.err = nil
		return 0, err
	}
	c.buf = nil
	return c.Conn.Read(p)
}

// begin reads the preamble. After an error it may be tried again: that may have been a deadline.
func (c *Conn) begin() error {
	for {
		if err := c.parse(); err != nil || c.over {
			return err
		}
		if len(c.buf) == cap(c.buf) {
			c.buf = append(make([]byte, 0, 2*cap(c.buf)+1<<10), c.buf...)
		}
		n, err := c.Conn.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if err == nil {
			continue
		}
		if parseErr := c.parse(); parseErr != nil {
			return parseErr
		}
		if err == io.EOF && !c.over {
			c.begun(nil) // whatever it was going to say
		}
		if !c.over {
			return err
		}
		c.err = err // after what came
		return nil
	}
}

// parse takes the preamble out of buf, or finds that there is none, unless more must come to tell.
func (c *Conn) parse() error {
	var expected [4]byte
	binary.BigEndian.PutUint32(expected[:], magic)
	if n := min(len(c.buf), len(expected)); string(c.buf[:n]) != string(expected[:n]) {
		c.begun(nil)
		return nil
	}
	if len(c.buf) < headerSize {
		return nil
	}
	size := binary.BigEndian.Uint32(c.buf[4:])
	if size > maxSize {
		return &SizeError{Conn: c, Size: size}
	}
	if rest := c.buf[headerSize:]; uint32(len(rest)) >= size {
		c.buf = rest[size:]
		c.begun(rest[:size])
	}
	return nil
}

// A SizeError is why a connection whose peer begins with too long a preamble cannot be read.
type SizeError struct {
	Conn *Conn
	Size uint32 // bytes, as the peer says
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("the peer's preamble of istio-peer-exchange is %d bytes long; at most %d are read", e.Size, maxSize)
}

func (c *Conn) begun(preamble []byte) {
	c.over = true
	if c.heard != nil {
		c.heard(preamble)
	}
}
