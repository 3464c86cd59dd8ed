// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/mesh"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	// backdate tolerates clocks that are behind ours.
	backdate = 2 * time.Minute

	// rootFile holds key and certificate together, so that creating it is one step.
	rootFile = "root.pem"
	// PublicFile is the certificate alone, in the state folder: for proxies to pin, and people to copy.
	PublicFile = "root-cert.pem"
)

// root is the trust anchor and its key.
type root struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte // the certificate
	pool *x509.CertPool
}

// openRoot loads the root of dir, or creates it if there is none.
func openRoot(dir string, td mesh.TrustDomain) (*root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	path := filepath.Join(dir, rootFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createRoot(path, td); err != nil {
			return nil, fmt.Errorf("creating the root: %w", err)
		}
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the root: %w", err)
	}
	if err := private(path); err != nil {
		return nil, err
	}
	r, err := parseRoot(b, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := writeFile(filepath.Join(dir, PublicFile), r.pem, 0o644); err != nil {
		return nil, fmt.Errorf("writing the root's certificate: %w", err)
	}
	return r, nil
}

// private refuses a secret that others may read: it must be taken for known.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s may be read by others (mode %04o); if nobody did, run chmod 600 on it", path, mode)
	}
	return nil
}

// createRoot writes a new root unless another process was faster.
func createRoot(path string, td mesh.TrustDomain) error {
	key, err := certs.NewKey()
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{string(td)}, CommonName: "Meltemi root"},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(rootLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:     true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	tmp, err := writeTemp(path, b, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	// A link fails where the name is taken; a rename would replace a root that others trust already.
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// parseRoot reads a certificate and its key, in any order, and checks that they
// can serve as the one root.
func parseRoot(b []byte, now time.Time) (*root, error) {
	r := &root{}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type != "CERTIFICATE":
			key, err := certs.ParseKey(pem.EncodeToMemory(block))
			if err != nil {
				return nil, err
			}
			if r.key != nil {
				return nil, errors.New("holds two keys")
			}
			r.key = key
		case r.cert != nil:
			return nil, errors.New("holds two certificates; changing the root of a mesh, and intermediates, are not supported")
		default:
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			r.cert, r.pem = cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
		}
	}
	if r.cert == nil || r.key == nil {
		return nil, errors.New("holds no certificate or no key; restore it from a backup: a new root would cut off every proxy")
	}
	r.pool = x509.NewCertPool()
	r.pool.AddCert(r.cert)
	return r, r.check(now)
}

func (r *root) check(now time.Time) error {
	pub, ok := r.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(r.key.Public()) {
		return errors.New("the key belongs to another certificate")
	}
	if err := strong(r.key.Public()); err != nil {
		return err
	}
	if !r.cert.IsCA || r.cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("the certificate may not sign others")
	}
	if err := r.cert.CheckSignatureFrom(r.cert); err != nil {
		return fmt.Errorf("the certificate is not self-signed; intermediates are not supported: %w", err)
	}
	if now.After(r.cert.NotAfter) {
		return fmt.Errorf("the root expired at %s; every proxy needs a new one", r.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(r.cert.NotBefore) {
		return fmt.Errorf("the root is valid from %s; is this machine's clock right?", r.cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// sign issues a leaf for a public key. The template gives names and usages.
func (r *root) sign(tmpl *x509.Certificate, pub crypto.PublicKey, life time.Duration) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if !now.Before(r.cert.NotAfter) {
		return nil, fmt.Errorf("the root expired at %s", r.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	tmpl.SerialNumber = serial
	tmpl.NotBefore, tmpl.NotAfter = now.Add(-backdate), now.Add(life)
	if tmpl.NotAfter.After(r.cert.NotAfter) {
		tmpl.NotAfter = r.cert.NotAfter
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	tmpl.BasicConstraintsValid, tmpl.IsCA = true, false
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.cert, pub, r.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial is 127 random bits: positive, and never the same twice.
func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// strong refuses keys that are too weak to trust, or so large that they cost
// every peer dearly.
func strong(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
		return fmt.Errorf("an ECDSA key on the curve %s; use P-256", k.Curve.Params().Name)
	case interface{ Size() int }: // RSA, in bytes
		if bits := k.Size() * 8; bits < 2048 || bits > 8192 {
			return fmt.Errorf("an RSA key of %d bits; 2048 to 8192 are accepted", bits)
		}
		return nil
	}
	return fmt.Errorf("a %T; ECDSA and RSA keys are accepted", pub)
}

// writeTemp writes b beside path and returns where.
func writeTemp(path string, b []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// writeFile replaces path in one step.
func writeFile(path string, b []byte, mode fs.FileMode) error {
	tmp, err := writeTemp(path, b, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return nil
}
