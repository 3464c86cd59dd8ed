// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package secrets

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/meltemi/meltemi/certs"
)

// A source gives what a handshake needs, as it is now.
type source interface {
	// certificate returns an error while there is none.
	certificate() (*tls.Certificate, error)
	// roots returns an error while there are none; nil without an error means
	// that there is nothing to verify by.
	roots() (*x509.CertPool, error)
}

// A Secret is a secret by name: what SDS brings. The zero value has not come yet.
type Secret struct {
	name string
	cert atomic.Pointer[tls.Certificate]
	pool atomic.Pointer[x509.CertPool]
}

func (s *Secret) certificate() (*tls.Certificate, error) {
	if c := s.cert.Load(); c != nil {
		return c, nil
	}
	return nil, s.missing("certificate")
}

func (s *Secret) roots() (*x509.CertPool, error) {
	if p := s.pool.Load(); p != nil {
		return p, nil
	}
	return nil, s.missing("roots")
}

func (s *Secret) missing(what string) error {
	return fmt.Errorf("secret %q has not come (%s): does it exist, and may this proxy read it?", s.name, what)
}

// Loaded says whether the secret has come.
func (s *Secret) Loaded() bool { return s.cert.Load() != nil || s.pool.Load() != nil }

// identity is the workload's own certificate, with the roots that came with it.
type identity struct{ source *certs.Source }

func (i identity) certificate() (*tls.Certificate, error) {
	if v := i.source.Current(); v != nil {
		return v.Certificate(), nil
	}
	return nil, errNoIdentity
}

func (i identity) roots() (*x509.CertPool, error) {
	if v := i.source.Current(); v != nil {
		return v.Roots, nil
	}
	return nil, errNoIdentity
}

var errNoIdentity = errors.New("this workload has no certificate yet: is the certificate authority reachable?")

// fixed is inline: it never changes.
type fixed struct {
	cert *tls.Certificate
	pool *x509.CertPool
}

func (f fixed) certificate() (*tls.Certificate, error) { return f.cert, nil }
func (f fixed) roots() (*x509.CertPool, error)         { return f.pool, nil }

// rereadEvery is how often files are read again. Kubernetes changes mounted
// secrets by the minute.
const rereadEvery = 10 * time.Second

// files reads a certificate with its key, or roots, from files again and again.
type files struct {
	read  func(path string) ([]byte, error)
	paths []string // certificate and key; or roots

	mu     sync.Mutex
	next   time.Time
	last   [][]byte
	loaded fixed
}

func newFiles(read func(string) ([]byte, error), paths ...string) (*files, error) {
	f := &files{read: read, paths: paths}
	return f, f.reload()
}

func (f *files) reload() error {
	f.next = time.Now().Add(rereadEvery)
	content := make([][]byte, len(f.paths))
	same := f.last != nil
	for i, path := range f.paths {
		b, err := f.read(path)
		if err != nil {
			return err
		}
		content[i] = b
		same = same && bytes.Equal(b, f.last[i])
	}
	if same {
		return nil
	}
	var next fixed
	var err error
	if len(content) == 2 {
		next.cert, err = parseCertificate(content[0], content[1])
	} else {
		next.pool, err = certs.ParseRoots(content[0])
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.paths[0], err)
	}
	f.loaded, f.last = next, content
	return nil
}

// current returns what was last read whole; a file that cannot be read or is
// half written leaves the old one in force.
func (f *files) current() fixed {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Now().After(f.next) {
		_ = f.reload()
	}
	return f.loaded
}

func (f *files) certificate() (*tls.Certificate, error) { return f.current().cert, nil }
func (f *files) roots() (*x509.CertPool, error)         { return f.current().pool, nil }

func parseCertificate(chain, key []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// maxSource bounds what one DataSource may hold, in bytes.
const maxSource = 1 << 20

// data returns the bytes of a DataSource and, if they are in a file, its path.
func (k *Keeper) data(d *corev3.DataSource) (b []byte, path string, err error) {
	switch s := d.GetSpecifier().(type) {
	case *corev3.DataSource_InlineBytes:
		b = s.InlineBytes
	case *corev3.DataSource_InlineString:
		b = []byte(s.InlineString)
	case *corev3.DataSource_Filename:
		b, err = k.read(s.Filename)
		path = s.Filename
	default:
		return nil, "", errors.New("it has neither inline bytes nor a filename")
	}
	if len(b) > maxSource {
		return nil, "", fmt.Errorf("%d bytes, more than %d", len(b), maxSource)
	}
	return b, path, err
}

// certificateSource makes a source of a TlsCertificate.
func (k *Keeper) certificateSource(c *tlsv3.TlsCertificate) (source, error) {
	chain, chainPath, err := k.data(c.GetCertificateChain())
	if err != nil {
		return nil, fmt.Errorf("certificate_chain: %w", err)
	}
	key, keyPath, err := k.data(c.GetPrivateKey())
	if err != nil {
		return nil, fmt.Errorf("private_key: %w", err)
	}
	if chainPath != "" && keyPath != "" {
		return newFiles(k.read, chainPath, keyPath)
	}
	cert, err := parseCertificate(chain, key)
	if err != nil {
		return nil, err
	}
	return fixed{cert: cert}, nil
}

// rootsSource makes a source of a validation context's trust anchors; nil if it has none.
func (k *Keeper) rootsSource(c *tlsv3.CertificateValidationContext) (source, error) {
	if c.GetSystemRootCerts() != nil {
		if c.GetTrustedCa() != nil {
			return nil, errors.New("both trusted_ca and system_root_certs")
		}
		return systemRoots()
	}
	if c.GetTrustedCa() == nil {
		return nil, nil
	}
	b, path, err := k.data(c.GetTrustedCa())
	if err != nil {
		return nil, fmt.Errorf("trusted_ca: %w", err)
	}
	if path != "" {
		return newFiles(k.read, path)
	}
	pool, err := certs.ParseRoots(b)
	if err != nil {
		return nil, fmt.Errorf("trusted_ca: %w", err)
	}
	return fixed{pool: pool}, nil
}

func systemRoots() (source, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's roots: %w", err)
	}
	return fixed{pool: pool}, nil
}
