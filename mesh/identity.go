// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"strings"
)

// Identity is who a workload is. Its text form is an X.509-SVID's only URI SAN.
type Identity struct {
	TrustDomain    TrustDomain
	Namespace      Namespace
	ServiceAccount ServiceAccount
}

const (
	spiffeScheme = "spiffe://"

	// maxIdentity is the longest SPIFFE ID (SPIFFE-ID section 2.3), in bytes.
	maxIdentity = 2048
	// maxTrustDomain is the longest trust domain name (SPIFFE-ID section 2.1), in bytes.
	maxTrustDomain = 255
)

// String is spiffe://TD/ns/NS/sa/SA.
func (id Identity) String() string {
	return spiffeScheme + id.Principal()
}

// Principal is the identity as Istio's policies write it: TD/ns/NS/sa/SA.
func (id Identity) Principal() string {
	return string(id.TrustDomain) + "/ns/" + string(id.Namespace) + "/sa/" + string(id.ServiceAccount)
}

// IsZero reports whether id names nobody.
func (id Identity) IsZero() bool { return id == Identity{} }

// Validate says why id cannot be written as a SPIFFE ID, if it cannot.
func (id Identity) Validate() error {
	_, err := ParseIdentity(id.String())
	return err
}

// ParseIdentity reads spiffe://TD/ns/NS/sa/SA and nothing else: no query, no
// further segments, no escapes, no upper-case trust domain (SPIFFE-ID sections 2.1 to 2.3).
// The parts are substrings of s.
func ParseIdentity(s string) (Identity, error) {
	id, err := parseIdentity(s)
	if err != nil {
		return Identity{}, fmt.Errorf("SPIFFE ID %q: %w", clip(s), err)
	}
	return id, nil
}

func parseIdentity(s string) (Identity, error) {
	if len(s) > maxIdentity {
		return Identity{}, fmt.Errorf("is %d bytes long; at most %d are allowed", len(s), maxIdentity)
	}
	rest, ok := strings.CutPrefix(s, spiffeScheme)
	if !ok {
		return Identity{}, errors.New("does not begin with spiffe://")
	}
	td, path, ok := strings.Cut(rest, "/")
	if err := checkTrustDomain(td); err != nil {
		return Identity{}, err
	}
	if !ok {
		return Identity{}, errors.New("has no path; want /ns/NAMESPACE/sa/SERVICEACCOUNT")
	}
	ns, sa, err := splitPath(path)
	if err != nil {
		return Identity{}, err
	}
	return Identity{TrustDomain(td), Namespace(ns), ServiceAccount(sa)}, nil
}

// splitPath takes ns/NS/sa/SA apart.
func splitPath(path string) (ns, sa string, err error) {
	rest, ok := strings.CutPrefix(path, "ns/")
	if !ok {
		return "", "", fmt.Errorf("has the path /%s; want /ns/NAMESPACE/sa/SERVICEACCOUNT", clip(path))
	}
	ns, rest, ok = strings.Cut(rest, "/")
	if !ok {
		return "", "", errors.New("ends after the namespace; want /sa/SERVICEACCOUNT next")
	}
	sa, ok = strings.CutPrefix(rest, "sa/")
	if !ok {
		return "", "", fmt.Errorf("has /%s after the namespace; want /sa/SERVICEACCOUNT", clip(rest))
	}
	if strings.Contains(sa, "/") {
		return "", "", errors.New("has more segments after the service account")
	}
	if err := checkSegment("namespace", ns); err != nil {
		return "", "", err
	}
	return ns, sa, checkSegment("service account", sa)
}

func checkTrustDomain(td string) error {
	if td == "" {
		return errors.New("has no trust domain")
	}
	if len(td) > maxTrustDomain {
		return fmt.Errorf("has a trust domain of %d bytes; at most %d are allowed", len(td), maxTrustDomain)
	}
	for i := range len(td) {
		if c := td[i]; !isLower(c) && !isDigit(c) && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("has %q in its trust domain; only a-z, 0-9, dot, dash and underscore are allowed", c)
		}
	}
	return nil
}

func checkSegment(what, s string) error {
	if s == "" {
		return fmt.Errorf("has an empty %s", what)
	}
	if s == "." || s == ".." {
		return fmt.Errorf("has the %s %q, which SPIFFE forbids as a path segment", what, s)
	}
	for i := range len(s) {
		if c := s[i]; !isLower(c) && !isDigit(c) && !(c >= 'A' && c <= 'Z') && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("has %q in its %s; only letters, digits, dot, dash and underscore are allowed", c, what)
		}
	}
	return nil
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// clip keeps an error readable, and a log small, whatever a peer sent.
func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
