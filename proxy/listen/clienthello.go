// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"encoding/binary"
	"errors"
	"strings"
)

// A hello is what filter chains ask of a TLS ClientHello (RFC 8446 section 4.1.2).
type hello struct {
	sni  string   // lower case; "" if not sent
	alpn []string // in the client's order
}

// errNotTLS says that the first bytes are no TLS handshake; errMore, that more
// bytes are needed to tell.
var (
	errNotTLS = errors.New("no TLS ClientHello")
	errMore   = errors.New("incomplete")
)

// Numbers of RFC 8446 and RFC 7301.
const (
	recordHandshake   = 22
	messageHello      = 1
	extensionSNI      = 0
	extensionALPN     = 16
	maxHello          = 16 << 10
	maxALPN           = 32
	recordHeader      = 5
	handshakeHeader   = 4
	maxRecord         = 1<<14 + 256
	helloFixedPrelude = 2 + 32 // legacy_version, random
)

// parseHello reads a ClientHello from the start of b, which may be split over
// several records. It returns errMore while b could still become one.
func parseHello(b []byte) (hello, error) {
	body, err := helloBody(b)
	if err != nil {
		return hello{}, err
	}
	r := reader{b: body}
	r.skip(helloFixedPrelude)
	r.skip(int(r.uint8()))  // legacy_session_id
	r.skip(int(r.uint16())) // cipher_suites
	r.skip(int(r.uint8()))  // legacy_compression_methods
	if r.bad {
		return hello{}, errNotTLS
	}
	if len(r.b) == 0 {
		return hello{}, nil // a client without extensions
	}
	var h hello
	ext := reader{b: r.bytes(int(r.uint16()))}
	for len(ext.b) > 0 && !ext.bad && !r.bad {
		kind := ext.uint16()
		data := reader{b: ext.bytes(int(ext.uint16()))}
		switch kind {
		case extensionSNI:
			h.sni = parseSNI(&data)
		case extensionALPN:
			h.alpn = parseALPN(&data)
		}
		if data.bad {
			return hello{}, errNotTLS
		}
	}
	if ext.bad || r.bad {
		return hello{}, errNotTLS
	}
	return h, nil
}

// helloBody joins the records that the message is split over.
func helloBody(b []byte) ([]byte, error) {
	var message []byte
	joined := false
	for {
		if len(b) == 0 {
			return nil, errMore
		}
		if b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
			return nil, errNotTLS
		}
		if len(b) < recordHeader {
			return nil, errMore
		}
		n := int(binary.BigEndian.Uint16(b[3:]))
		if n == 0 || n > maxRecord {
			return nil, errNotTLS
		}
		part := b[recordHeader:]
		whole := len(part) >= n
		if whole {
			part, b = part[:n], part[n:]
		}
		if !joined {
			message, joined = part, true
		} else {
			message = append(message[:len(message):len(message)], part...)
		}
		if len(message) > 0 && message[0] != messageHello {
			return nil, errNotTLS
		}
		if len(message) >= handshakeHeader {
			size := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
			if size > maxHello {
				return nil, errNotTLS
			}
			if len(message) >= handshakeHeader+size {
				return message[handshakeHeader : handshakeHeader+size], nil
			}
		}
		if !whole {
			return nil, errMore
		}
	}
}

func parseSNI(r *reader) string {
	names := reader{b: r.bytes(int(r.uint16()))}
	for len(names.b) > 0 && !names.bad {
		kind := names.uint8()
		name := names.bytes(int(names.uint16()))
		if kind == 0 && !names.bad {
			return strings.ToLower(strings.TrimSuffix(string(name), "."))
		}
	}
	r.bad = r.bad || names.bad
	return ""
}

func parseALPN(r *reader) []string {
	list := reader{b: r.bytes(int(r.uint16()))}
	var out []string
	for len(list.b) > 0 && !list.bad {
		if p := list.bytes(int(list.uint8())); !list.bad && len(out) < maxALPN {
			out = append(out, string(p))
		}
	}
	r.bad = r.bad || list.bad
	return out
}

// A reader consumes bytes; bad is set once something was missing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.bad = true
		r.b = nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) skip(n int) { r.bytes(n) }

func (r *reader) uint8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}
