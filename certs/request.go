// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	securityv1 "istio.io/api/security/v1alpha1"
)

// maxAnswer is the largest answer of an authority, in bytes.
const maxAnswer = 1 << 20

// An Authority signs requests.
type Authority interface {
	// Sign returns a chain in PEM, leaf first and without roots, and the roots.
	// A lifetime of zero leaves the choice to the authority.
	Sign(ctx context.Context, csr []byte, lifetime time.Duration) (chain, roots []byte, err error)
}

// CAConfig is where certificates are requested.
type CAConfig struct {
	Target string // a gRPC target: "istiod.istio-system.svc:15012"
	// Roots are the trust anchors of the authority's server certificate, read for each
	// connection. If nil, the connection is made without TLS, as to port 15010.
	Roots func() (*x509.CertPool, error)
	// Token is read for each request; a file that is replaced is read anew. It may be nil or return "".
	Token func() (string, error)
	// Source, if set, presents the present certificate to get the next one.
	Source *Source
	// Timeout of one request; 10 s unless set.
	Timeout time.Duration
	Options []grpc.DialOption
}

// A CA requests certificates by Istio's certificate service.
type CA struct{ cfg CAConfig }

// NewCA makes a CA. It opens nothing.
func NewCA(cfg CAConfig) (*CA, error) {
	if cfg.Target == "" {
		return nil, errors.New("certificate authority: no target is configured")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	return &CA{cfg: cfg}, nil
}

// Sign asks the service. Each request has its own connection: there is one in
// hours, and it should reach an authority that is alive now.
func (c *CA) Sign(ctx context.Context, csr []byte, lifetime time.Duration) (chain, roots []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	conn, err := grpc.NewClient(c.cfg.Target, c.options()...)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate authority %s: %w", c.cfg.Target, err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := securityv1.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &securityv1.IstioCertificateRequest{
		Csr: string(csr), ValidityDuration: int64(lifetime / time.Second),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("certificate authority %s: %w", c.cfg.Target, err)
	}
	chain, roots, err = splitAnswer(answer.GetCertChain())
	if err != nil {
		return nil, nil, fmt.Errorf("certificate authority %s: %w", c.cfg.Target, err)
	}
	return chain, roots, nil
}

// splitAnswer: the first is the leaf, the last the roots, between them what leads from one to the other.
func splitAnswer(parts []string) (chain, roots []byte, err error) {
	if len(parts) < 2 {
		return nil, nil, fmt.Errorf("the answer has %d parts; want a leaf, and the roots at the end", len(parts))
	}
	var b strings.Builder
	for _, p := range parts[:len(parts)-1] {
		b.WriteString(strings.TrimSpace(p))
		b.WriteByte('\n')
	}
	return []byte(b.String()), []byte(parts[len(parts)-1]), nil
}

func (c *CA) options() []grpc.DialOption {
	transport := insecure.NewCredentials()
	if c.cfg.Roots != nil {
		transport = Credentials(func() (*tls.Config, error) {
			roots, err := c.cfg.Roots()
			if err != nil {
				return nil, fmt.Errorf("roots of the certificate authority: %w", err)
			}
			return ControlPlaneConfig(roots, c.cfg.Source), nil
		})
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(transport), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
	}
	if c.cfg.Token != nil {
		opts = append(opts, grpc.WithPerRPCCredentials(Bearer(c.cfg.Token, c.cfg.Roots == nil)))
	}
	return append(opts, c.cfg.Options...)
}
