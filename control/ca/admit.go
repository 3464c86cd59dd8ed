// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/mesh"
)

// A caller is who is asking: by certificate, by token, or both.
type caller struct {
	id    mesh.Identity // from the certificate; zero if none
	grant Grant         // from the token; empty if none
}

// Authenticate says whose gRPC call or stream this is, for xds.ServerConfig: the
// identity of its client certificate, or that of a token which grants exactly one.
func (a *Authority) Authenticate(ctx context.Context) (string, error) {
	c, err := a.caller(ctx)
	if err != nil {
		return "", err
	}
	if !c.id.IsZero() {
		return c.id.String(), nil
	}
	if id, ok := c.grant.sole(a.cfg.TrustDomain); ok {
		return id.String(), nil
	}
	return "", status.Errorf(codes.Unauthenticated,
		"the token stands for several identities of namespace %q; request a certificate with it, then call again with that", c.grant.Namespace)
}

// caller verifies what came with a call. A certificate is verified again, although the
// handshake did it: a connection outlives its certificate, and may have been made by another configuration.
func (a *Authority) caller(ctx context.Context) (caller, error) {
	var c caller
	chain, err := certs.PeerChain(ctx)
	if err != nil {
		return c, status.Error(codes.Unauthenticated, err.Error())
	}
	var certErr error
	if len(chain) > 0 {
		c.id, certErr = a.verify(chain)
	}
	token, ok := certs.BearerToken(ctx)
	switch {
	case ok:
		// The token alone may do, for a proxy whose certificate ended while it slept.
		if c.grant, err = a.verifyToken(ctx, token); err != nil && c.id.IsZero() {
			return c, status.Error(codes.Unauthenticated, err.Error())
		}
	case certErr != nil:
		return c, status.Errorf(codes.Unauthenticated, "the client certificate is refused: %v", certErr)
	case len(chain) == 0:
		return c, status.Error(codes.Unauthenticated, "neither a client certificate nor a bearer token was sent; a proxy joins with a token")
	}
	return c, nil
}

func (a *Authority) verify(chain []*x509.Certificate) (mesh.Identity, error) {
	id, err := certs.Verify(chain, a.root.pool, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return mesh.Identity{}, err
	}
	if id.TrustDomain != a.cfg.TrustDomain {
		return mesh.Identity{}, fmt.Errorf("%s is of another trust domain than %s", id, a.cfg.TrustDomain)
	}
	return id, nil
}

func (a *Authority) verifyToken(ctx context.Context, token string) (Grant, error) {
	if isJoinToken(token) {
		g, err := a.tokens.Verify(token)
		if err != nil && !errors.Is(err, errToken) {
			a.cfg.Log.Error("join tokens cannot be read", "error", err)
			return Grant{}, errors.New("join tokens cannot be read now; see the control plane's log")
		}
		return g, err
	}
	if a.cfg.VerifyToken == nil {
		return Grant{}, errors.New("the bearer token is no join token, and this control plane accepts no others")
	}
	return a.cfg.VerifyToken(ctx, token)
}

// permit decides which identity a caller gets who wants one; a zero wanted means
// the caller's own.
func (a *Authority) permit(ctx context.Context, c caller, wanted mesh.Identity, impersonates bool) (mesh.Identity, error) {
	own, hasOwn := c.id, !c.id.IsZero()
	if !hasOwn {
		own, hasOwn = c.grant.sole(a.cfg.TrustDomain)
	}
	if wanted.IsZero() {
		if !hasOwn {
			return own, status.Errorf(codes.InvalidArgument, "the request names no identity, and the token stands for several; put a SPIFFE URI into the request")
		}
		return own, nil
	}
	if wanted.TrustDomain != a.cfg.TrustDomain {
		return wanted, status.Errorf(codes.PermissionDenied, "%s is of another trust domain; this authority signs for %s", wanted, a.cfg.TrustDomain)
	}
	if wanted == c.id || c.grant.Allows(wanted) {
		return wanted, nil
	}
	if impersonates && hasOwn {
		if a.cfg.MayImpersonate == nil {
			return wanted, status.Errorf(codes.PermissionDenied, "%s asks in the name of %s; this control plane lets nobody do so", own, wanted)
		}
		if err := a.cfg.MayImpersonate(ctx, own, wanted); err != nil {
			return wanted, status.Errorf(codes.PermissionDenied, "%s may not ask in the name of %s: %v", own, wanted, err)
		}
		return wanted, nil
	}
	if !c.id.IsZero() {
		return wanted, status.Errorf(codes.PermissionDenied, "the caller is %s and may not hold %s", c.id, wanted)
	}
	return wanted, status.Errorf(codes.PermissionDenied, "the token does not cover %s", wanted)
}

// peerAddr is where a call comes from, for counting; the zero address if unknown.
func peerAddr(ctx context.Context) netip.Addr {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		if ap, err := netip.ParseAddrPort(p.Addr.String()); err == nil {
			return ap.Addr().Unmap()
		}
	}
	return netip.Addr{}
}
