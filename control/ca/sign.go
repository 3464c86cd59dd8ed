// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	securityv1 "istio.io/api/security/v1alpha1"

	"github.com/meltemi/meltemi/mesh"
)

const (
	// maxCSR is the longest request, in bytes; one for an RSA key of 8192 bits has 2,900.
	maxCSR = 16 << 10
	// impersonated is the metadata by which a node proxy names the workload it asks for.
	impersonated = "ImpersonatedIdentity"
)

// CreateCertificate is Istio's certificate service. The answer is the leaf, then the root.
func (a *Authority) CreateCertificate(ctx context.Context, req *securityv1.IstioCertificateRequest) (*securityv1.IstioCertificateResponse, error) {
	from := peerAddr(ctx)
	if !a.limit.take(from, time.Now()) {
		return nil, status.Errorf(codes.ResourceExhausted, "more than %v certificate requests per second from %v; come back later", a.cfg.RequestsPerSecond, from)
	}
	leaf, id, err := a.create(ctx, req)
	if err != nil {
		a.cfg.Log.Warn("certificate refused", "peer", from.String(), "error", err)
		return nil, err
	}
	a.cfg.Log.Info("certificate issued", "identity", id.String(), "peer", from.String(), "serial", leaf.SerialNumber.Text(16), "until", leaf.NotAfter)
	chain := []string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})), string(a.root.pem)}
	return &securityv1.IstioCertificateResponse{CertChain: chain}, nil
}

func (a *Authority) create(ctx context.Context, req *securityv1.IstioCertificateRequest) (*x509.Certificate, mesh.Identity, error) {
	var none mesh.Identity
	who, err := a.caller(ctx) // before the request is looked at: parsing is for those who may ask
	if err != nil {
		return nil, none, err
	}
	csr, err := parseRequest(req.GetCsr())
	if err != nil {
		return nil, none, err
	}
	wanted, err := requested(csr)
	if err != nil {
		return nil, none, err
	}
	wanted, foreign, err := inNameOf(req, wanted)
	if err != nil {
		return nil, none, err
	}
	life, err := a.lifetime(req.GetValidityDuration())
	if err != nil {
		return nil, none, err
	}
	id, err := a.permit(ctx, who, wanted, foreign)
	if err != nil {
		return nil, none, err
	}
	leaf, err := a.issue(id, csr.PublicKey, life)
	return leaf, id, err
}

// issue signs. Nothing of a request gets into the certificate but its key.
func (a *Authority) issue(id mesh.Identity, key crypto.PublicKey, life time.Duration) (*x509.Certificate, error) {
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, status.Errorf(codes.Internal, "identity %s: %v", id, err)
	}
	leaf, err := a.root.sign(&x509.Certificate{
		URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key, life)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "signing for %s: %v", id, err)
	}
	return leaf, nil
}

// parseRequest takes exactly one request, whose sender holds its key.
func parseRequest(text string) (*x509.CertificateRequest, error) {
	if len(text) > maxCSR {
		return nil, status.Errorf(codes.InvalidArgument, "a certificate request of %d bytes; at most %d are allowed", len(text), maxCSR)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") {
		return nil, status.Error(codes.InvalidArgument, "the certificate request is no PEM block CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the certificate request cannot be read: %v", err)
	}
	if err := strong(csr.PublicKey); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the certificate request holds %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the certificate request is not signed by its own key: %v", err)
	}
	return csr, nil
}

// requested is the identity a request names; zero if it names none. Any other
// kind of name is refused rather than dropped: its sender expects to get it.
func requested(csr *x509.CertificateRequest) (mesh.Identity, error) {
	if len(csr.DNSNames)+len(csr.IPAddresses)+len(csr.EmailAddresses) > 0 {
		return mesh.Identity{}, status.Error(codes.PermissionDenied, "the certificate request names hosts, addresses or mailboxes; only a SPIFFE URI is signed")
	}
	switch len(csr.URIs) {
	case 0:
		return mesh.Identity{}, nil
	case 1:
		id, err := mesh.ParseIdentity(csr.URIs[0].String())
		if err != nil {
			return id, status.Errorf(codes.InvalidArgument, "the certificate request: %v", err)
		}
		return id, nil
	}
	return mesh.Identity{}, status.Errorf(codes.PermissionDenied, "the certificate request names %d URIs; an SVID has one", len(csr.URIs))
}

// inNameOf is the identity that a node proxy names in the metadata. It must be that of the request, if that names one.
func inNameOf(req *securityv1.IstioCertificateRequest, wanted mesh.Identity) (id mesh.Identity, foreign bool, err error) {
	v := req.GetMetadata().GetFields()[impersonated].GetStringValue()
	if v == "" {
		return wanted, false, nil
	}
	id, err = mesh.ParseIdentity(v)
	if err != nil {
		return id, true, status.Errorf(codes.InvalidArgument, "metadata %s: %v", impersonated, err)
	}
	if !wanted.IsZero() && wanted != id {
		return id, true, status.Errorf(codes.InvalidArgument, "the certificate request names %s, metadata %s names %s", wanted, impersonated, id)
	}
	return id, true, nil
}

// lifetime is what a request gets that asks for so many seconds.
func (a *Authority) lifetime(seconds int64) (time.Duration, error) {
	if seconds == 0 {
		return a.cfg.Lifetime, nil
	}
	if seconds < 0 || seconds > int64(a.cfg.MaxLifetime/time.Second) {
		return 0, status.Errorf(codes.InvalidArgument, "a lifetime of %d seconds; 1 to %d are allowed", seconds, int64(a.cfg.MaxLifetime/time.Second))
	}
	return time.Duration(seconds) * time.Second, nil
}
