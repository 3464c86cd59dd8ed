// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meltemi/meltemi/mesh"
)

// FuzzToken: no text but that of a token which was issued is one, and none leads out of the folder of tokens.
func FuzzToken(f *testing.F) {
	dir := f.TempDir()
	tokens, err := OpenTokens(dir)
	if err != nil {
		f.Fatal(err)
	}
	id := mesh.Identity{TrustDomain: mesh.DefaultTrustDomain, Namespace: "default", ServiceAccount: "web"}
	token, info, err := tokens.Issue(ForIdentity(id), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "outside.json"), []byte(`{"expires":"2999-01-01T00:00:00Z"}`), 0o600); err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{token, tokenPrefix + info.ID + ".", tokenPrefix + "../outside.x", tokenPrefix + ".", "", "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := tokens.Verify(s); (err == nil) != (s == token) {
			t.Errorf("%q: %v", s, err)
		}
	})
}
