// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestStateFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	a, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	token := a.token(t, ForIdentity(identity("shop", "web")))
	b, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if string(a.RootPEM()) != string(b.RootPEM()) {
		t.Error("the root changed")
	}
	if g, err := b.Tokens().Verify(token); err != nil || !g.Allows(identity("shop", "web")) {
		t.Errorf("the token did not survive: %v", err)
	}
	path := filepath.Join(dir, rootFile)
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	err = filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, _ := os.ReadFile(p)
		if _, secret, _ := splitToken(token); strings.Contains(string(b), secret) {
			t.Errorf("%s holds the token", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	text, _ := os.ReadFile(path)
	other, _ := Open(Config{Dir: t.TempDir()})
	otherText, _ := os.ReadFile(filepath.Join(other.cfg.Dir, rootFile))
	cert, key, _ := strings.Cut(string(text), "-----BEGIN PRIVATE KEY")
	key = "-----BEGIN PRIVATE KEY" + key
	leafCSR, load := request(t, identity("a", "b"))
	signer, _ := a.Local(identity("a", "b"))
	chain, roots, err := signer.Sign(t.Context(), leafCSR, 0)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, _ := load(chain, roots).KeyPEM()
	for want, content := range map[string]string{
		"belongs to another":  string(otherText[:strings.Index(string(otherText), "-----BEGIN PRIVATE")]) + key,
		"no certificate":      key,
		"no certificate or":   cert,
		"two certificates":    string(text) + cert,
		"two keys":            string(text) + key,
		"may not sign others": string(chain) + string(leafKey),
		"no certificate or n": "",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	os.WriteFile(path, text, 0o600)
	os.Chmod(path, 0o644)
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a readable root: %v", err)
	}
	r, err := parseRoot(text, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.check(time.Now().Add(rootLife)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an old root: %v", err)
	}
	if err := r.check(time.Now().Add(-time.Hour)); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("a root from the future: %v", err)
	}
}

func TestManyOpenOneRoot(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	roots := make([]string, 8)
	for i := range roots {
		wg.Go(func() {
			a, err := Open(Config{Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = string(a.RootPEM())
		})
	}
	wg.Wait()
	for _, r := range roots {
		if r != roots[0] {
			t.Fatal("two processes made two roots")
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for want, cfg := range map[string]Config{
		"no state folder":    {},
		"below one second":   {Dir: t.TempDir(), Lifetime: time.Millisecond},
		"above the great":    {Dir: t.TempDir(), Lifetime: time.Hour, MaxLifetime: time.Minute},
		`trust domain "X y"`: {Dir: t.TempDir(), TrustDomain: "X y"},
		"neither a DNS":      {Dir: t.TempDir(), ServingNames: []string{"a b"}},
	} {
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	tk, _ := OpenTokens(t.TempDir())
	if _, _, err := tk.Issue(Grant{}, time.Hour); err == nil {
		t.Error("a token for no namespace")
	}
	if _, _, err := tk.Issue(Grant{Namespace: "a"}, 0); err == nil {
		t.Error("a token that has expired")
	}
	if err := tk.Revoke("../x"); err == nil {
		t.Error("a path was revoked")
	}
}

func TestSweepingTokens(t *testing.T) {
	tk, err := OpenTokens(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tk.Issue(Grant{Namespace: "a"}, time.Minute)
	_, keep, _ := tk.Issue(Grant{Namespace: "b"}, time.Hour)
	if err := tk.sweep(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if l, err := tk.List(); err != nil || len(l) != 1 || l[0].ID != keep.ID {
		t.Errorf("%v, %v", l, err)
	}
}
