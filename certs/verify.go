// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/meltemi/meltemi/mesh"
)

// A Match accepts SPIFFE IDs: one, or all that begin with a prefix. A match with both empty accepts nothing.
type Match struct {
	Exact  string
	Prefix string
}

// Accepts reports whether uri is one of those m stands for.
func (m Match) Accepts(uri string) bool {
	if m.Exact != "" {
		return uri == m.Exact
	}
	return m.Prefix != "" && strings.HasPrefix(uri, m.Prefix)
}

// InTrustDomain accepts every identity of a trust domain.
func InTrustDomain(td mesh.TrustDomain) Match { return Match{Prefix: "spiffe://" + string(td) + "/"} }

// IdentityOf is the SPIFFE ID of a leaf: its only URI SAN (X.509-SVID section 2).
func IdentityOf(leaf *x509.Certificate) (mesh.Identity, error) {
	if n := len(leaf.URIs); n != 1 {
		return mesh.Identity{}, fmt.Errorf("the certificate has %d URI names; an SVID has one", n)
	}
	return mesh.ParseIdentity(leaf.URIs[0].String())
}

// Verify checks a peer's chain, leaf first, against roots and says who it is.
// The key usage is that of the peer's role: ExtKeyUsageClientAuth, ExtKeyUsageServerAuth,
// or ExtKeyUsageAny.
func Verify(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage) (mesh.Identity, error) {
	if len(chain) == 0 {
		return mesh.Identity{}, errors.New("the peer presented no certificate")
	}
	leaf := chain[0]
	if leaf.IsCA {
		return mesh.Identity{}, errors.New("the certificate is a CA's; a workload's may not be")
	}
	opt := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range chain[1:] {
		opt.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opt); err != nil {
		return mesh.Identity{}, err
	}
	return IdentityOf(leaf)
}
