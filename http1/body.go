// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/meltemi/meltemi/message"
)

// A bodyKind is how the end of a body is found.
type bodyKind uint8

const (
	bodyNone       bodyKind = iota // there is none, or it was read
	bodyLength                     // after left bytes
	bodyChunked                    // after the last chunk and the trailers
	bodyUntilClose                 // when the connection ends
	bodyTunnel                     // not a body: the connection's raw bytes
)

// Where a chunked body stands:
//
//	size → data → dataEnd → size … → size of 0 → trailer
type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkDataEnd
	chunkTrailer
)

// An input is one direction of a connection: a reader that knows where the
// message it reads ends.
type input struct {
	reader
	lim      Limits
	kind     bodyKind
	chunk    chunkState
	left     int64 // bytes of the body, or of the chunk
	extBytes int   // of chunk extensions so far
	trailer  message.Header
	fault    error // sticky: after it, where the next message begins is unknown
}

// begin expects a body; left counts only for bodyLength.
func (in *input) begin(kind bodyKind, left int64) {
	if kind == bodyLength && left == 0 {
		kind = bodyNone
	}
	in.kind, in.left = kind, left
	in.chunk, in.extBytes = chunkSize, 0
	in.trailer.Reset()
}

// Read reads the body into p. It returns io.EOF together with the last bytes
// where that is known without waiting.
func (in *input) Read(p []byte) (n int, err error) {
	if in.fault != nil {
		return 0, in.fault
	}
	if len(p) == 0 && in.kind != bodyNone {
		return 0, nil
	}
	switch in.kind {
	case bodyLength:
		n, err = in.readLength(p)
	case bodyChunked:
		n, err = in.readChunked(p)
	case bodyUntilClose:
		n, err = in.readRaw(p)
		if err == io.EOF {
			in.kind = bodyNone
		}
	default: // none; and a tunnel is not read as a body
		err = io.EOF
	}
	if err != nil && err != io.EOF && !isTimeout(err) {
		in.fault = err
	}
	return n, err
}

func isTimeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

func (in *input) readLength(p []byte) (int, error) {
	if int64(len(p)) > in.left {
		p = p[:in.left]
	}
	n, err := in.readRaw(p)
	if in.left -= int64(n); in.left == 0 {
		in.kind = bodyNone
		return n, io.EOF
	}
	return n, truncation(err)
}

// readRaw reads what is buffered, or else from the connection past the buffer.
func (in *reader) readRaw(p []byte) (int, error) {
	if in.r < in.w {
		n := copy(p, in.buf.b[in.r:in.w])
		in.r += n
		return n, nil
	}
	n, err := in.conn.Read(p)
	in.got += int64(n)
	return n, err
}

func truncation(err error) error {
	if err == io.EOF {
		return errTruncated
	}
	return err
}

// readChunked decodes chunks into p for as long as there is something buffered;
// it waits only while it has nothing to return.
func (in *input) readChunked(p []byte) (n int, err error) {
	for {
		switch in.chunk {
		case chunkSize:
			ok, err := in.chunkLine()
			if err != nil {
				return n, err
			}
			if ok {
				continue
			}
		case chunkData:
			if n == len(p) {
				return n, nil
			}
			if in.Buffered() > 0 || n == 0 && min(int64(len(p)), in.left) >= writeBuffer/2 {
				m, err := in.readRaw(p[n:min(int64(len(p)), int64(n)+in.left)])
				n += m
				if in.left -= int64(m); in.left == 0 {
					in.chunk = chunkDataEnd
				}
				if err != nil {
					return n, truncation(err)
				}
				continue
			}
		case chunkDataEnd:
			if b := in.unread(); len(b) >= 2 {
				if b[0] != '\r' || b[1] != '\n' {
					return n, malformed("chunk is longer than its size")
				}
				in.r += 2
				in.chunk = chunkSize
				continue
			}
		case chunkTrailer:
			done, err := in.readTrailer()
			if done || err != nil {
				return n, err
			}
		}
		if n > 0 {
			return n, nil
		}
		if err := in.fill(writeBuffer); err != nil {
			return 0, truncation(err)
		}
	}
}

// chunkLine reads chunk-size [chunk-ext] CRLF (RFC 9112 section 7.1); it says
// false if the line is not whole yet.
func (in *input) chunkLine() (bool, error) {
	b := in.unread()
	i := bytes.IndexByte(b[:min(len(b), maxChunkLine)], '\n')
	if i < 0 {
		if len(b) >= maxChunkLine {
			return false, &Error{400, TooLarge, "chunk line is longer than allowed"}
		}
		return false, nil
	}
	if i == 0 || b[i-1] != '\r' {
		return false, malformed("chunk line ends with LF alone")
	}
	size, ext, bad := parseChunkLine(b[:i-1])
	if bad != nil {
		return false, bad
	}
	if in.extBytes += ext; in.extBytes > maxChunkExtensions {
		return false, &Error{400, TooLarge, "chunk extensions are longer than allowed"}
	}
	in.r += i + 1
	in.left = size
	if in.chunk = chunkData; size == 0 {
		in.chunk = chunkTrailer
	}
	return true, nil
}

// parseChunkLine returns the size and the number of bytes spent on extensions,
// which are ignored.
func parseChunkLine(line []byte) (size int64, ext int, bad *Error) {
	i := 0
	for ; i < len(line) && chars[line[i]]&charHex != 0; i++ {
		if i == 16 || size > (1<<63-1)>>4 {
			return 0, 0, malformed("chunk size is too large")
		}
		size = size<<4 | int64(unhex(line[i]))
	}
	if i == 0 {
		return 0, 0, malformed("invalid chunk size")
	}
	rest := line[i:]
	if s := trimOWS(view(rest)); s != "" && s[0] != ';' || !validValue(s) {
		return 0, 0, malformed("invalid chunk extension")
	}
	return size, len(rest), nil
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// readTrailer reads the trailer section and says false if it is not whole yet.
func (in *input) readTrailer() (done bool, err error) {
	b := in.unread()
	if len(b) < 2 {
		return false, nil
	}
	if b[0] == '\r' && b[1] == '\n' {
		in.r += 2
		in.kind = bodyNone
		return true, io.EOF
	}
	var s headScan
	strict := Limits{MaxHeadBytes: in.lim.MaxHeadBytes, MaxFields: in.lim.MaxFields}
	if whole, bad := s.scan(b, &strict, strict.MaxFields); bad != nil {
		return false, trailerError(bad)
	} else if !whole {
		return false, nil
	}
	for {
		line, rest, bad := cutLine(b, false)
		if bad != nil {
			return false, bad
		}
		b = rest
		if len(line) == 0 {
			break
		}
		if in.trailer.Len() == strict.MaxFields {
			return false, trailerError(errFieldCount)
		}
		name, value, bad := parseField(line)
		if bad != nil {
			return false, bad
		}
		in.trailer.Add(name, value)
	}
	in.r = in.w - len(b)
	in.pin()
	in.trailer.DeleteFunc(notInTrailer)
	in.kind = bodyNone
	return true, io.EOF
}

func trailerError(bad *Error) error {
	if bad.Kind == TooLarge {
		return &Error{431, TooLarge, "trailer section is larger than allowed"}
	}
	return bad
}

// notInTrailer says whether a field is dropped from a trailer section, as it
// frames, routes, authenticates or describes the message that is already being
// handled (RFC 9110 section 6.5.1).
func notInTrailer(field message.Field) bool {
	for _, name := range [...]string{
		"content-length", "transfer-encoding", "connection", "host", "te", "trailer", "upgrade",
		"keep-alive", "proxy-connection", "http2-settings", "expect", "max-forwards", "range",
		"content-type", "content-encoding", "content-range", "cache-control",
		"authorization", "proxy-authorization", "proxy-authenticate", "www-authenticate",
		"cookie", "set-cookie", "location", "date", "vary", "age", "expires",
	} {
		if message.EqualFold(name, field.Name) {
			return true
		}
	}
	return false
}

// drain reads away at most limit bytes of the body and says whether it ended.
func (in *input) drain(limit int) (ended bool, err error) {
	if in.kind == bodyNone {
		return in.fault == nil, in.fault
	}
	if in.kind == bodyTunnel || in.kind == bodyUntilClose || in.kind == bodyLength && in.left > int64(limit) {
		return false, nil
	}
	scratch := getBuffer(minReadBuffer)
	defer scratch.put()
	for limit >= 0 {
		n, err := in.Read(scratch.b)
		limit -= n
		if errors.Is(err, io.EOF) {
			return limit >= 0, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}
