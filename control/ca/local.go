// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"encoding/pem"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/mesh"
)

// local signs for a part of our own process.
type local struct {
	a  *Authority
	id mesh.Identity
}

// Local signs for one identity without a network between: for a proxy that runs in the control plane's own process.
func (a *Authority) Local(id mesh.Identity) (certs.Authority, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if id.TrustDomain != a.cfg.TrustDomain {
		return nil, fmt.Errorf("%s is of another trust domain; this authority signs for %s", id, a.cfg.TrustDomain)
	}
	return &local{a: a, id: id}, nil
}

func (l *local) Sign(_ context.Context, csrPEM []byte, lifetime time.Duration) (chain, roots []byte, err error) {
	csr, err := parseRequest(string(csrPEM))
	if err != nil {
		return nil, nil, err
	}
	id, err := requested(csr)
	if err != nil {
		return nil, nil, err
	}
	if id != l.id {
		return nil, nil, status.Errorf(codes.PermissionDenied, "the request names %s, but %s is asking", id, l.id)
	}
	life, err := l.a.lifetime(int64(lifetime / time.Second))
	if err != nil {
		return nil, nil, err
	}
	leaf, err := l.a.issue(id, csr.PublicKey, life)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), l.a.root.pem, nil
}
