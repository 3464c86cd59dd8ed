// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	securityv1 "istio.io/api/security/v1alpha1"

	"github.com/meltemi/meltemi/mesh"
)

// Config is what an Authority is told. A zero value means the one of Defaults.
type Config struct {
	Dir         string // the state folder; created if absent, for our eyes only
	TrustDomain mesh.TrustDomain

	Lifetime    time.Duration // of a leaf, where the request says nothing
	MaxLifetime time.Duration // a request for more is refused

	// ServingNames are further DNS names and addresses of the control plane's server certificate.
	ServingNames    []string
	ServingLifetime time.Duration

	RequestsPerSecond float64 // of one peer address
	Burst             int     // of one peer address, after a pause

	// VerifyToken, if set, judges tokens that are not join tokens, as those of
	// Kubernetes service accounts, and says what they grant.
	VerifyToken func(ctx context.Context, token string) (Grant, error)
	// MayImpersonate, if set, lets a node proxy ask for the identity of a workload
	// on its node. If nil, asking for another identity is refused.
	MayImpersonate func(ctx context.Context, caller, wanted mesh.Identity) error

	Log *slog.Logger // nil discards
}

// Defaults is the configuration of an authority nobody has tuned.
func Defaults() Config {
	return Config{
		TrustDomain:       mesh.DefaultTrustDomain,
		Lifetime:          24 * time.Hour,
		MaxLifetime:       90 * 24 * time.Hour,
		ServingLifetime:   24 * time.Hour,
		RequestsPerSecond: 20,  // a node proxy asks for all of its pods' identities
		Burst:             200, // when it starts
	}
}

// An Authority signs workload certificates. It implements Istio's certificate service.
type Authority struct {
	securityv1.UnimplementedIstioCertificateServiceServer

	cfg     Config
	root    *root
	tokens  *Tokens
	serving *serving
	limit   *limiter
}

// Open loads the root and the tokens from the state folder, or creates them.
func Open(cfg Config) (*Authority, error) {
	d := Defaults()
	if cfg.Dir == "" {
		return nil, errors.New("certificate authority: no state folder is configured")
	}
	orDefault(&cfg.TrustDomain, d.TrustDomain)
	orDefault(&cfg.Lifetime, d.Lifetime)
	orDefault(&cfg.MaxLifetime, max(d.MaxLifetime, cfg.Lifetime))
	orDefault(&cfg.ServingLifetime, d.ServingLifetime)
	orDefault(&cfg.RequestsPerSecond, d.RequestsPerSecond)
	orDefault(&cfg.Burst, d.Burst)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Lifetime < time.Second || cfg.ServingLifetime < time.Second {
		return nil, errors.New("certificate authority: a lifetime below one second; certificates count in seconds")
	}
	if cfg.Lifetime > cfg.MaxLifetime {
		return nil, fmt.Errorf("certificate authority: the lifetime %v is above the greatest, %v", cfg.Lifetime, cfg.MaxLifetime)
	}
	probe := mesh.Identity{TrustDomain: cfg.TrustDomain, Namespace: "n", ServiceAccount: "s"}
	if err := probe.Validate(); err != nil {
		return nil, fmt.Errorf("certificate authority: trust domain %q: %w", cfg.TrustDomain, err)
	}
	r, err := openRoot(cfg.Dir, cfg.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	tokens, err := OpenTokens(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	a := &Authority{cfg: cfg, root: r, tokens: tokens, limit: newLimiter(cfg.RequestsPerSecond, cfg.Burst)}
	a.serving, err = newServing(r, cfg.ServingNames, cfg.ServingLifetime)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return a, nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Register adds the certificate service to r.
func (a *Authority) Register(r grpc.ServiceRegistrar) {
	securityv1.RegisterIstioCertificateServiceServer(r, a)
}

// RootPEM is the trust anchor of the mesh.
func (a *Authority) RootPEM() []byte { return a.root.pem }

// TrustDomain is the one whose identities are signed.
func (a *Authority) TrustDomain() mesh.TrustDomain { return a.cfg.TrustDomain }

// Tokens are the join tokens that are honoured.
func (a *Authority) Tokens() *Tokens { return a.tokens }

// Run sweeps expired tokens until ctx ends. Serving certificates need no Run;
// they are renewed by the handshake that finds them old.
func (a *Authority) Run(ctx context.Context) error {
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		if err := a.tokens.sweep(time.Now()); err != nil {
			a.cfg.Log.Warn("expired join tokens could not be removed", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}
