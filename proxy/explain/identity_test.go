// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/meltemi/meltemi/certs"
)

// identity is the caller's certificate, in a mesh that nobody else is in.
func identity(t *testing.T) *certs.Source {
	t.Helper()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/default/sa/bookinfo-reviews"}},
	}
	rootKey, rootPEM := sign(t, root, root, nil)
	leafKey, leafPEM := sign(t, leaf, root, rootKey)
	svid, err := certs.NewSVID(leafPEM, leafKey, rootPEM)
	if err != nil {
		t.Fatal(err)
	}
	source := &certs.Source{}
	source.Set(svid)
	return source
}

// sign makes a key and a certificate for it; by nil, the key itself signs.
func sign(t *testing.T, c, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := certs.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
