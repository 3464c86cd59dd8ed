// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package secrets

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/meltemi/meltemi/certs"
)

// A Keeper holds the secrets of one proxy by name. It is safe for use by many
// goroutines.
type Keeper struct {
	identity *certs.Source
	read     func(path string) ([]byte, error)

	mu    sync.Mutex
	named map[string]*Secret
}

// NewKeeper returns a Keeper. Identity, which may be nil, is what the names
// "default" and "ROOTCA" stand for; read reads files, os.ReadFile if nil.
func NewKeeper(identity *certs.Source, read func(string) ([]byte, error)) *Keeper {
	if read == nil {
		read = os.ReadFile
	}
	return &Keeper{identity: identity, read: read, named: map[string]*Secret{}}
}

// Secret returns the secret of that name, which need not have come.
func (k *Keeper) Secret(name string) *Secret {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.named[name]
	if s == nil {
		s = &Secret{name: name}
		k.named[name] = s
	}
	return s
}

// Put makes m current under its name. What is invalid is refused, and the old
// one stays.
func (k *Keeper) Put(m *tlsv3.Secret) error {
	s := k.Secret(m.GetName())
	switch t := m.GetType().(type) {
	case *tlsv3.Secret_TlsCertificate:
		src, err := k.certificateSource(t.TlsCertificate)
		if err != nil {
			return err
		}
		c, err := src.certificate()
		if err != nil {
			return err
		}
		s.cert.Store(c)
	case *tlsv3.Secret_ValidationContext:
		src, err := k.rootsSource(t.ValidationContext)
		if err != nil {
			return err
		}
		if src == nil {
			return errors.New("validation_context: trusted_ca is missing")
		}
		pool, err := src.roots()
		if err != nil {
			return err
		}
		s.pool.Store(pool)
	default:
		return errors.New("the secret is missing")
	}
	return nil
}

// A Want is a secret that must be subscribed to, and how long to wait for it: 0
// is forever.
type Want struct {
	Name    string
	Timeout time.Duration
}

// defaultTimeout is Envoy's for an unset initial_fetch_timeout.
const defaultTimeout = 15 * time.Second

// sds finds what an SdsSecretConfig stands for.
func (k *Keeper) sds(c *tlsv3.SdsSecretConfig, wants *[]Want) (source, error) {
	name, from := c.GetName(), c.GetSdsConfig()
	if src, err, ok := k.wellKnown(name); ok {
		return src, err
	}
	if from == nil { // one of static_resources.secrets
		return k.Secret(name), nil
	}
	switch s := from.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Ads:
		timeout := defaultTimeout
		if t := from.GetInitialFetchTimeout(); t != nil {
			timeout = t.AsDuration()
		}
		if !slices.ContainsFunc(*wants, func(w Want) bool { return w.Name == name }) {
			*wants = append(*wants, Want{name, timeout})
		}
		return k.Secret(name), nil
	case *corev3.ConfigSource_ApiConfigSource:
		server := "?"
		for _, g := range s.ApiConfigSource.GetGrpcServices() {
			server = g.GetEnvoyGrpc().GetClusterName()
		}
		return nil, fmt.Errorf("secret %q: the SDS server %q is not supported; only ADS, the workload's own certificate and files are", name, server)
	}
	return nil, fmt.Errorf("secret %q: this sds_config is not supported", name)
}

// wellKnown finds the names by which Istio addresses the workload's certificate
// and files.
func (k *Keeper) wellKnown(name string) (src source, err error, ok bool) {
	switch name {
	case "default", "ROOTCA", "builtin://":
		if k.identity == nil {
			return nil, fmt.Errorf("secret %q: this proxy has no workload certificate configured", name), true
		}
		return identity{k.identity}, nil, true
	case "file-root:system":
		src, err = systemRoots()
		return src, err, true
	}
	if pair, found := strings.CutPrefix(name, "file-cert:"); found {
		cert, key, both := strings.Cut(pair, "~")
		if !both {
			return nil, fmt.Errorf("secret %q: want file-cert:CERTIFICATE~KEY", name), true
		}
		src, err = newFiles(k.read, cert, key)
		return src, err, true
	}
	if path, found := strings.CutPrefix(name, "file-root:"); found {
		src, err = newFiles(k.read, path)
		return src, err, true
	}
	return nil, nil, false
}
