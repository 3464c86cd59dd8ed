// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"bytes"
	"errors"
	"io"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

// The reader and the reference take any bytes apart alike, in whatever pieces
// they come.
func FuzzReaderAgreesWithReference(f *testing.F) {
	f.Add([]byte(nil), uint8(1))
	f.Add(AppendPing(AppendReset(nil, 3, 8), true, [PingLen]byte{1}), uint8(3))
	f.Add(append(AppendHead(nil, 9000, Data, FlagEndStream, 7), make([]byte, 9100)...), uint8(255))
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		r := Reader{Src: &pieces{b: in, n: int(piece) + 1}, Idle: func() {}}
		defer r.Release()
		ref := bytes.NewReader(in)
		for {
			h, err := r.Next()
			rh, refErr := xhttp2.ReadFrameHeader(ref)
			if (err == nil) != (refErr == nil) {
				t.Fatalf("head: %v, reference %v", err, refErr)
			}
			if err != nil {
				return
			}
			if uint32(h.Length) != rh.Length || uint8(h.Kind) != uint8(rh.Type) || h.Flags != uint8(rh.Flags) || h.Stream != rh.StreamID {
				t.Fatalf("head %+v, reference %v", h, rh)
			}
			want := make([]byte, h.Length)
			if n, _ := io.ReadFull(ref, want); n < h.Length {
				if err := r.Skip(h.Length); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("a truncated payload: %v", err)
				}
				return
			}
			var got []byte
			if h.Length <= 100 {
				b, err := r.Take(h.Length)
				if err != nil {
					t.Fatal(err)
				}
				got = b
			}
			for len(got) < h.Length {
				b, err := r.Part(h.Length - len(got))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b...)
			}
			if !bytes.Equal(got, want) {
				t.Fatal("payloads differ")
			}
		}
	})
}

// pieces gives b in reads of up to n bytes.
type pieces struct {
	b []byte
	n int
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(to[:min(len(to), p.n)], p.b)
	p.b = p.b[n:]
	return n, nil
}
