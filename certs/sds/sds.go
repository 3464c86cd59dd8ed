// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package sds hands a workload's certificate to an Envoy beside it, by the secret
// discovery service on a unix socket, as Istio's agent does.
//
// Three secrets are served, under Istio's names: "default" is the certificate with its
// key, "ROOTCA" the mesh's roots, "file-root:system" those of this machine. The first two follow
// the Source: a rotation is sent at once. While there is no certificate yet, the answer waits, and so
// do Envoy's listeners.
// The socket's directory decides who may read the key; there is no other check.
//
// This room is, beside those of the design's table, one that speaks an Envoy
// resource: the Secret, and nothing else.
package sds

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/xds"
)

// Names of the secrets; Istio's.
const (
	Default = "default"
	RootCA  = "ROOTCA"
	// SystemRoots are the authorities that this machine trusts, for TLS to the world outside.
	SystemRoots = "file-root:system"

	secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

// NewHub makes the Hub for an xds.Server that serves src on a unix socket. log may be nil.
func NewHub(src *certs.Source, log *slog.Logger) xds.Hub {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &hub{src: src, log: log}
}

type hub struct {
	src *certs.Source
	log *slog.Logger
}

func (h *hub) Open(_ context.Context, c *xds.Client) (xds.Feed, error) {
	return &feed{hub: h, client: c.ID, wake: make(chan struct{}, 1), sent: map[string]*certs.SVID{}}, nil
}

// feed is what one Envoy is to be sent.
type feed struct {
	*hub
	client string
	wake   chan struct{} // the subscription changed

	mu     sync.Mutex
	want   []string
	absent []string // asked for, and none of ours; to be said once
	first  bool     // the first answer is owed
	sent   map[string]*certs.SVID
	n      int
}

func (f *feed) Subscribe(typeURL string, add, remove []string, wildcard bool) {
	if typeURL != secretType {
		return // no other type is served; a socket for secrets has no other clients
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first = f.first || f.n == 0
	if wildcard {
		add = append(slices.Clone(add), Default, RootCA)
	}
	for _, n := range remove {
		f.want = slices.DeleteFunc(f.want, func(w string) bool { return w == n })
		delete(f.sent, n)
	}
	for _, n := range add {
		delete(f.sent, n) // asking again is answered again
		switch {
		case n != Default && n != RootCA && (n != SystemRoots || systemRoots() == nil):
			f.absent = append(f.absent, n)
		case !slices.Contains(f.want, n):
			f.want = append(f.want, n)
		}
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed) Next(ctx context.Context) (*xds.Update, error) {
	for {
		changed := f.src.Changed()
		if v := f.src.Current(); v != nil {
			u, err := f.update(v)
			if u != nil || err != nil {
				return u, err
			}
		}
		select {
		case <-changed:
		case <-f.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// update is what the client lacks of v; nil if nothing.
func (f *feed) update(v *certs.SVID) (*xds.Update, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &xds.Update{TypeURL: secretType, Removed: f.absent, Full: f.first}
	for _, n := range f.want {
		had := f.sent[n]
		if had == v || had != nil && (n == SystemRoots || n == RootCA && bytes.Equal(had.RootPEM, v.RootPEM)) {
			continue
		}
		r, err := secret(n, v)
		if err != nil {
			return nil, err
		}
		u.Resources = append(u.Resources, r)
		f.sent[n] = v
	}
	if len(u.Resources) == 0 && len(u.Removed) == 0 && !u.Full {
		return nil, nil
	}
	f.first, f.absent = false, nil
	f.n++
	u.Nonce, u.Version = strconv.Itoa(f.n), strconv.Itoa(f.n)
	return u, nil
}

// secret is one of them, as Envoy reads it.
func secret(name string, v *certs.SVID) (xds.Resource, error) {
	s := &tlsv3.Secret{Name: name}
	roots := func(pem []byte) {
		s.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(pem)}}
	}
	switch name {
	case RootCA:
		roots(v.RootPEM)
	case SystemRoots:
		roots(systemRoots())
	default:
		key, err := v.KeyPEM()
		if err != nil {
			return xds.Resource{}, err
		}
		s.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(v.ChainPEM()), PrivateKey: inline(key)}}
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
	if err != nil {
		return xds.Resource{}, fmt.Errorf("secret %s: %w", name, err)
	}
	return xds.Resource{Name: name, Body: &anypb.Any{TypeUrl: secretType, Value: value}}, nil
}

// bundles are where systems keep what they trust, the first that is there.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
	"/etc/ssl/ca-bundle.pem",                            // SUSE
	"/etc/ssl/cert.pem",                                 // macOS, BSD
}

// systemRoots is the bundle, or nil.
func systemRoots() []byte {
	for _, path := range bundles {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			return b
		}
	}
	return nil
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func (f *feed) Ack(string, string) {}

func (f *feed) Nack(_, _, detail string) {
	f.log.Error("the proxy refuses its certificate", "client", f.client, "detail", detail)
}

func (f *feed) Close() {}
