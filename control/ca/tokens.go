// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/mesh"
)

// A Grant is which identities its holder may ask for.
type Grant struct {
	Namespace mesh.Namespace `json:"namespace"`
	// ServiceAccounts of the namespace; empty means all of it.
	ServiceAccounts []mesh.ServiceAccount `json:"serviceAccounts,omitempty"`
}

// ForIdentity grants one identity.
func ForIdentity(id mesh.Identity) Grant {
	return Grant{Namespace: id.Namespace, ServiceAccounts: []mesh.ServiceAccount{id.ServiceAccount}}
}

// Allows reports whether g covers id. The trust domain is the authority's and not looked at here.
func (g Grant) Allows(id mesh.Identity) bool {
	if g.Namespace == "" || g.Namespace != id.Namespace {
		return false
	}
	return len(g.ServiceAccounts) == 0 || slices.Contains(g.ServiceAccounts, id.ServiceAccount)
}

// sole is the identity of a grant that covers just one.
func (g Grant) sole(td mesh.TrustDomain) (mesh.Identity, bool) {
	if len(g.ServiceAccounts) != 1 {
		return mesh.Identity{}, false
	}
	return mesh.Identity{TrustDomain: td, Namespace: g.Namespace, ServiceAccount: g.ServiceAccounts[0]}, true
}

func (g Grant) validate() error {
	accounts := g.ServiceAccounts
	if len(accounts) == 0 {
		accounts = []mesh.ServiceAccount{mesh.DefaultServiceAccount}
	}
	for _, sa := range accounts {
		if err := (mesh.Identity{TrustDomain: "x", Namespace: g.Namespace, ServiceAccount: sa}).Validate(); err != nil {
			return err
		}
	}
	return nil
}

// Tokens are join tokens, kept as one file each in the state folder: what is
// written is a hash, so whoever reads the folder cannot join. A token may be used
// until it expires or is revoked, because a machine that restarts joins again.
type Tokens struct{ dir string }

// TokenInfo is what is kept of a token.
type TokenInfo struct {
	ID      string    `json:"id"`
	Hash    string    `json:"hash"` // SHA-256 of the secret, which is random and long, in hex
	Grant   Grant     `json:"grant"`
	Expires time.Time `json:"expires"`
}

const (
	tokenPrefix = "meltemi-join."
	tokenDir    = "tokens"
	idBytes     = 8
	secretBytes = 32
	maxToken    = 1 << 10
)

// errToken does not say whether a token is unknown, wrong or revoked.
var errToken = errors.New("the join token is unknown, revoked or expired; issue a new one on the control plane")

// OpenTokens opens the tokens of a state folder, which a running authority may share.
func OpenTokens(stateDir string) (*Tokens, error) {
	dir := filepath.Join(stateDir, tokenDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("join tokens: %w", err)
	}
	return &Tokens{dir: dir}, nil
}

// Issue makes a token; the text is shown once and never stored.
func (t *Tokens) Issue(g Grant, life time.Duration) (token string, info TokenInfo, err error) {
	if err := g.validate(); err != nil {
		return "", info, fmt.Errorf("join token: %w", err)
	}
	if life <= 0 {
		return "", info, errors.New("join token: it would have expired already; give it a positive lifetime")
	}
	b := make([]byte, idBytes+secretBytes)
	if _, err := rand.Read(b); err != nil {
		return "", info, err
	}
	secret := base64.RawURLEncoding.EncodeToString(b[idBytes:])
	info = TokenInfo{ID: hex.EncodeToString(b[:idBytes]), Hash: hash(secret), Grant: g, Expires: time.Now().Add(life).UTC()}
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return "", info, err
	}
	if err := writeFile(t.path(info.ID), text, 0o600); err != nil {
		return "", info, fmt.Errorf("join token: %w", err)
	}
	return tokenPrefix + info.ID + "." + secret, info, nil
}

// Verify says what a token grants.
func (t *Tokens) Verify(token string) (Grant, error) {
	id, secret, ok := splitToken(token)
	if !ok {
		return Grant{}, errToken
	}
	info, err := t.load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return Grant{}, errToken
	}
	if err != nil {
		return Grant{}, err
	}
	right := subtle.ConstantTimeCompare([]byte(info.Hash), []byte(hash(secret))) == 1
	if !right || !time.Now().Before(info.Expires) {
		return Grant{}, errToken
	}
	return info.Grant, nil
}

// Revoke ends a token; certificates that were issued for it live on until they expire.
func (t *Tokens) Revoke(id string) error {
	if !validID(id) {
		return fmt.Errorf("join token %q: no such token", id)
	}
	if err := os.Remove(t.path(id)); err != nil {
		return fmt.Errorf("join token %s: %w", id, err)
	}
	return nil
}

// List is every token that is kept, by ID.
func (t *Tokens) List() ([]TokenInfo, error) {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return nil, fmt.Errorf("join tokens: %w", err)
	}
	var out []TokenInfo
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !validID(id) {
			continue
		}
		info, err := t.load(id)
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

func (t *Tokens) sweep(now time.Time) error {
	infos, err := t.List()
	if err != nil {
		return err
	}
	for _, info := range infos {
		if now.After(info.Expires) {
			err = errors.Join(err, t.Revoke(info.ID))
		}
	}
	return err
}

func (t *Tokens) load(id string) (TokenInfo, error) {
	b, err := os.ReadFile(t.path(id))
	if err != nil {
		return TokenInfo{}, fmt.Errorf("join token: %w", err)
	}
	var info TokenInfo
	if err := json.Unmarshal(b, &info); err != nil {
		return TokenInfo{}, fmt.Errorf("join token %s: its file is damaged; revoke it: %w", id, err)
	}
	return info, nil
}

// File is where a token is kept; without the file there is no such token.
func (t *Tokens) File(id string) string { return t.path(id) }

func (t *Tokens) path(id string) string { return filepath.Join(t.dir, id+".json") }

// isJoinToken tells our tokens from others.
func isJoinToken(token string) bool { return strings.HasPrefix(token, tokenPrefix) }

func splitToken(token string) (id, secret string, ok bool) {
	if len(token) > maxToken {
		return "", "", false
	}
	rest, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok {
		return "", "", false
	}
	id, secret, ok = strings.Cut(rest, ".")
	return id, secret, ok && validID(id)
}

// validID keeps a token from naming another file.
func validID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == idBytes && strings.ToLower(id) == id
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
