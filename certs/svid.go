// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/meltemi/meltemi/mesh"
)

// maxChain is how many certificates a chain or a bundle of roots may hold.
const maxChain = 100

// An SVID is a workload's certificate with its key, and the roots by which it knows its peers.
// It is immutable. Printing it shows no secret.
type SVID struct {
	Identity mesh.Identity
	Roots    *x509.CertPool
	RootPEM  []byte

	cert tls.Certificate
}

// NewSVID checks a chain in PEM, leaf first, against its key and the roots:
// the leaf must be valid now, must bear exactly one SPIFFE ID, and must lead to a root.
func NewSVID(chainPEM []byte, key crypto.Signer, rootPEM []byte) (*SVID, error) {
	chain, err := ParseCertificates(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	roots, err := ParseRoots(rootPEM)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(key.Public()) {
		return nil, errors.New("certificate chain: the leaf belongs to another key")
	}
	id, err := Verify(chain, roots, x509.ExtKeyUsageAny)
	if err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	v := &SVID{Identity: id, Roots: roots, RootPEM: bytes.Clone(rootPEM)}
	v.cert = tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, c := range chain {
		v.cert.Certificate = append(v.cert.Certificate, c.Raw)
	}
	return v, nil
}

// LoadSVID is NewSVID for a key in PEM (PKCS #8, SEC 1 or PKCS #1).
func LoadSVID(chainPEM, keyPEM, rootPEM []byte) (*SVID, error) {
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	return NewSVID(chainPEM, key, rootPEM)
}

// Leaf is the certificate itself.
func (v *SVID) Leaf() *x509.Certificate { return v.cert.Leaf }

// Certificate is what a TLS configuration presents. It is shared; nobody writes to it.
func (v *SVID) Certificate() *tls.Certificate { return &v.cert }

// NotAfter is when it ends.
func (v *SVID) NotAfter() time.Time { return v.cert.Leaf.NotAfter }

// ChainPEM is the leaf and what leads from it to a root, without the root.
func (v *SVID) ChainPEM() []byte {
	var out []byte
	for _, der := range v.cert.Certificate {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})...)
	}
	return out
}

// KeyPEM is the private key as PKCS #8, for a proxy on the same machine. It is not to be written to disk.
func (v *SVID) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(v.cert.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("private key of %s: %w", v.Identity, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// String is the identity and the end, for logs.
func (v *SVID) String() string {
	return fmt.Sprintf("%s until %s", v.Identity, v.NotAfter().UTC().Format(time.RFC3339))
}

// GoString keeps %#v from printing the key.
func (v *SVID) GoString() string { return "certs.SVID(" + v.String() + ")" }

// LogValue keeps structured logs from printing the key.
func (v *SVID) LogValue() slog.Value { return slog.StringValue(v.String()) }

// ParseCertificates reads one or more certificates in PEM.
func ParseCertificates(b []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		block, b = pem.Decode(b)
		if block == nil {
			break
		}
		if block.Type != pemCertificate {
			return nil, fmt.Errorf("a PEM block of type %q among certificates", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if out = append(out, c); len(out) > maxChain {
			return nil, fmt.Errorf("more than %d certificates", maxChain)
		}
	}
	if len(bytes.TrimSpace(b)) > 0 {
		return nil, errors.New("text that is no PEM after the certificates")
	}
	if len(out) == 0 {
		return nil, errors.New("no certificate")
	}
	return out, nil
}

// ParseRoots reads trust anchors in PEM; each must be a CA.
func ParseRoots(b []byte) (*x509.CertPool, error) {
	certs, err := ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		if !c.IsCA {
			return nil, fmt.Errorf("roots: %q is no CA", c.Subject)
		}
		pool.AddCert(c)
	}
	return pool, nil
}

// ParseKey reads a private key in PEM.
func ParseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("private key: no PEM block")
	}
	var key any
	var err error
	switch block.Type {
	case pemKey:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case pemKeyEC:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case pemKeyRSA:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("private key: a PEM block of type %q", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key: a %T cannot sign", key)
	}
	return signer, nil
}
