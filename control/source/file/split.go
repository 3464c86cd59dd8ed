// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import "bytes"

// piece is the text of one document.
type piece struct {
	text string
	line int // of its first line, from one
}

// split cuts a file at its document markers. A line that begins with "---" or "..." cannot be
// part of any value in YAML, so a broken document never spills into the next one.
func split(data []byte) []piece {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	// YAML counts every sort of line break as one, so lines are counted after these are the same.
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	var pieces []piece
	start, first, line := 0, 1, 1
	cut := func(end int) {
		if text := data[start:end]; len(bytes.TrimSpace(text)) > 0 {
			pieces = append(pieces, piece{string(text), first})
		}
	}
	for at := 0; at < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if isMarker(data[at:end]) {
			cut(at)
			// What follows the marker on its line belongs to the document: "--- {kind: …}".
			start, first = at+3, line
		}
		at = end
	}
	cut(len(data))
	return pieces
}

func isMarker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || line[3] == ' ' || line[3] == '\t' || line[3] == '\n' || line[3] == '\r'
}
