// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/xds"
)

// The file is a magic, a message in protobuf's wire format, and a SHA-256 of both.
// Another version of the message has another magic; fields that are not known are skipped.
const (
	fileName   = "in-use.meltemi"
	magic      = "MLTKEEP1"
	digestSize = sha256.Size
)

// Field numbers.
const (
	fieldOwner, fieldAt, fieldNote, fieldUpdate                     = 1, 2, 3, 4
	fieldType, fieldResource                                        = 1, 2
	fieldName, fieldVersion, fieldAlias, fieldBody protowire.Number = 1, 2, 3, 4
)

// A Kept is the contents of a file.
type Kept struct {
	Owner   string
	At      time.Time
	Notes   []string
	Updates []xds.Update // one per type
}

func (k *Keeper) path() string { return filepath.Join(k.cfg.Dir, fileName) }

// useful says why the file is of no use to this process, if it is not.
func (k *Kept) useful(owner string, now time.Time, most time.Duration) error {
	switch age := now.Sub(k.At); {
	case k.Owner != owner:
		return fmt.Errorf("it belongs to %q, not to %q", k.Owner, owner)
	case age > most:
		return fmt.Errorf("it was written %v ago, more than %v", age.Round(time.Minute), most)
	}
	return nil
}

// encode returns the file, and a digest of it that leaves out the time.
func (k *Kept) encode() (file []byte, digest [digestSize]byte) {
	b := []byte(magic)
	b = putString(b, fieldOwner, k.Owner)
	for _, n := range k.Notes {
		b = putString(b, fieldNote, n)
	}
	for _, u := range k.Updates {
		m := putString(nil, fieldType, u.TypeURL)
		for _, r := range u.Resources {
			m = putBytes(m, fieldResource, encodeResource(r))
		}
		b = putBytes(b, fieldUpdate, m)
	}
	digest = sha256.Sum256(b)
	b = protowire.AppendTag(b, fieldAt, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(k.At.Unix()))
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), digest
}

func encodeResource(r xds.Resource) []byte {
	b := putString(nil, fieldName, r.Name)
	b = putString(b, fieldVersion, r.Version)
	for _, a := range r.Aliases {
		b = putString(b, fieldAlias, a)
	}
	return putBytes(b, fieldBody, r.Body.GetValue())
}

func putString(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func putBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

var (
	errTooLarge = errors.New("it is too large")
	errNotOurs  = errors.New("it is no file of this version")
	errDamaged  = errors.New("it is damaged")
)

// read takes a file apart.
func read(r io.Reader, most int64) (*Kept, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(b)) > most:
		return nil, errTooLarge
	case !bytes.HasPrefix(b, []byte(magic)):
		return nil, errNotOurs
	case len(b) < len(magic)+digestSize:
		return nil, errDamaged
	}
	body, sum := b[:len(b)-digestSize], b[len(b)-digestSize:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return nil, errDamaged
	}
	return decode(body[len(magic):])
}

func decode(b []byte) (*Kept, error) {
	k := &Kept{}
	err := fields(b, func(field protowire.Number, n uint64, v []byte) error {
		switch field {
		case fieldOwner:
			k.Owner = string(v)
		case fieldAt:
			k.At = time.Unix(int64(n), 0)
		case fieldNote:
			k.Notes = append(k.Notes, string(v))
		case fieldUpdate:
			u, err := decodeUpdate(v)
			k.Updates = append(k.Updates, u)
			return err
		}
		return nil
	})
	return k, err
}

func decodeUpdate(b []byte) (u xds.Update, err error) {
	err = fields(b, func(field protowire.Number, _ uint64, v []byte) error {
		switch field {
		case fieldType:
			u.TypeURL = string(v)
		case fieldResource:
			r, err := decodeResource(v)
			u.Resources = append(u.Resources, r)
			return err
		}
		return nil
	})
	for i := range u.Resources {
		u.Resources[i].Body.TypeUrl = u.TypeURL
	}
	return u, err
}

func decodeResource(b []byte) (xds.Resource, error) {
	r := xds.Resource{Body: &anypb.Any{}}
	err := fields(b, func(field protowire.Number, _ uint64, v []byte) error {
		switch field {
		case fieldName:
			r.Name = string(v)
		case fieldVersion:
			r.Version = string(v)
		case fieldAlias:
			r.Aliases = append(r.Aliases, string(v))
		case fieldBody:
			r.Body.Value = bytes.Clone(v)
		}
		return nil
	})
	return r, err
}

// fields visits the fields of a message: numbers and bytes; others are skipped.
func fields(b []byte, visit func(field protowire.Number, n uint64, v []byte) error) error {
	for len(b) > 0 {
		field, kind, used := protowire.ConsumeTag(b)
		if used < 0 {
			return errDamaged
		}
		b = b[used:]
		var n uint64
		var v []byte
		switch kind {
		case protowire.VarintType:
			n, used = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			v, used = protowire.ConsumeBytes(b)
		default:
			used = protowire.ConsumeFieldValue(field, kind, b)
		}
		if used < 0 {
			return errDamaged
		}
		if err := visit(field, n, v); err != nil {
			return err
		}
		b = b[used:]
	}
	return nil
}

// write puts b where path is, wholly or not at all.
func write(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".keep-*") // readable by us alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
