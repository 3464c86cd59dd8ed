// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// freshTLS makes a TLS configuration for each handshake, so that a connection
// sees the roots and the certificate of now.
type freshTLS struct {
	credentials.TransportCredentials
	config func() (*tls.Config, error)
}

// Credentials are transport credentials for a gRPC client whose configuration is
// asked for anew in each handshake.
func Credentials(config func() (*tls.Config, error)) credentials.TransportCredentials {
	return &freshTLS{TransportCredentials: credentials.NewTLS(nil), config: config}
}

func (f *freshTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, err := f.config()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(c).ClientHandshake(ctx, authority, raw)
}

func (f *freshTLS) Clone() credentials.TransportCredentials {
	return &freshTLS{TransportCredentials: f.TransportCredentials.Clone(), config: f.config}
}

// bearer sends a token with each call.
type bearer struct {
	token     func() (string, error)
	plaintext bool
}

// Bearer sends what token returns as "authorization: Bearer"; nothing if it is
// empty. Unless plaintext is allowed, it is never sent without TLS.
func Bearer(token func() (string, error), plaintext bool) credentials.PerRPCCredentials {
	return bearer{token: token, plaintext: plaintext}
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	t, err := b.token()
	if err != nil || t == "" {
		return nil, err
	}
	return map[string]string{"authorization": bearerPrefix + strings.TrimSpace(t)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return !b.plaintext }

const bearerPrefix = "Bearer "

// BearerToken is the token a gRPC caller sent.
func BearerToken(ctx context.Context) (string, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("authorization") {
		if len(v) > len(bearerPrefix) && strings.EqualFold(v[:len(bearerPrefix)], bearerPrefix) {
			return v[len(bearerPrefix):], true
		}
	}
	return "", false
}

// PeerChain is the chain a gRPC caller presented, leaf first; nil if none. It is not verified here.
func PeerChain(ctx context.Context) ([]*x509.Certificate, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errors.New("the call has no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, nil
	}
	return info.State.PeerCertificates, nil
}
