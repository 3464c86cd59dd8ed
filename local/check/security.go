// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/meltemi/meltemi/local/watch"
)

// mutualTLS wants every service to have seen who called it.
func mutualTLS(ctx context.Context, m *Mesh) (string, error) {
	r, err := m.pageAs(ctx, "jason") // whose page takes all four services
	if err != nil {
		return "", err
	}
	caller := map[string]string{"productpage": "", "details": "productpage", "reviews": "productpage", "ratings": "reviews"}
	var wrong []string
	for service, by := range caller {
		want := m.identityOf(by)
		if got := r.hops[service].peer; got != want {
			wrong = append(wrong, fmt.Sprintf("%s was called by %q, want %q", service, got, want))
		}
	}
	if len(wrong) > 0 {
		sort.Strings(wrong)
		return "", errors.New(strings.Join(wrong, "; "))
	}
	return "each service saw the SPIFFE identity of its caller", nil
}

// identityOf returns the identity of a service; of the gateway, if that is "".
func (m *Mesh) identityOf(service string) string {
	for _, x := range m.Members {
		if x.Service == service {
			return x.Identity
		}
	}
	return ""
}

// eachInbound tries f on every member that takes callers.
func (m *Mesh) eachInbound(f func(x Member) error) (n int, err error) {
	var errs []error
	for _, x := range m.Members {
		if !x.Inbound.IsValid() {
			continue
		}
		n++
		if err := f(x); err != nil {
			errs = append(errs, fmt.Errorf("%s at %s: %w", x.ID, x.Inbound, err))
		}
	}
	return n, errors.Join(errs...)
}

const dialTimeout = 3 * time.Second

// plaintextRefused speaks HTTP without TLS to every proxy, as somebody outside of the mesh would.
func plaintextRefused(ctx context.Context, m *Mesh) (string, error) {
	n, err := m.eachInbound(func(x Member) error {
		c, err := dial(ctx, x)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", x.Service); err != nil {
			return nil // refused before it was said
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return timedOut(err)
		}
		_ = resp.Body.Close()
		return fmt.Errorf("answered plaintext with %s: STRICT mutual TLS is not in force", resp.Status)
	})
	return fmt.Sprintf("%d proxies hang up on plaintext", n), err
}

// certificates looks at the certificate of every proxy, and offers none, which must not do.
func certificates(ctx context.Context, m *Mesh) (string, error) {
	n, err := m.eachInbound(func(x Member) error {
		c, err := dial(ctx, x)
		if err != nil {
			return err
		}
		defer c.Close()
		t := tls.Client(c, &tls.Config{
			MinVersion:         tls.VersionTLS13,
			NextProtos:         []string{"istio", "h2", "http/1.1"},
			InsecureSkipVerify: true, // SPIFFE certificates name no host: verified below
			VerifyConnection:   func(s tls.ConnectionState) error { return m.verify(s, x.Identity) },
		})
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		// In TLS 1.3 the verdict on our missing certificate comes after the handshake.
		_, _ = fmt.Fprintf(t, "GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", x.Service)
		if k, err := t.Read(make([]byte, 1)); k > 0 {
			return errors.New("answered a client without a certificate")
		} else if err != nil {
			return timedOut(err)
		}
		return nil
	})
	return fmt.Sprintf("%d proxies speak TLS 1.3, prove their SPIFFE identity, and want a certificate", n), err
}

// verify wants a certificate of our roots with exactly this identity.
func (m *Mesh) verify(s tls.ConnectionState, identity string) error {
	leaf := s.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: m.Roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != identity {
		return fmt.Errorf("its certificate is for %v, want %s", leaf.URIs, identity)
	}
	return nil
}

func dial(ctx context.Context, x Member) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", x.Inbound.String())
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(dialTimeout))
}

// timedOut is err if it is a timeout: hanging up is what we want, hanging on is not.
func timedOut(err error) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return errors.New("neither answered nor hung up")
	}
	return nil
}

// metrics wants the proxies to report mutual TLS on every edge between members.
func metrics(ctx context.Context, m *Mesh) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		mutual := 0
		var wrong []string
		for _, e := range m.Look(ctx).Edges {
			switch e.Security {
			case watch.Mutual:
				mutual++
			case watch.Plain, watch.Mixed:
				wrong = append(wrong, fmt.Sprintf("%s to %s %s", e.From, e.To, e.Version))
			}
		}
		switch {
		case len(wrong) > 0:
			return "", fmt.Errorf("not by mutual TLS: %s", strings.Join(wrong, ", "))
		case mutual > 0:
			return fmt.Sprintf("connection_security_policy is mutual_tls on %d edges", mutual), nil
		}
		// Nothing was counted since the last look: make something to count.
		_, err := m.pageAs(ctx, "jason")
		switch {
		case ctx.Err() == nil && err != nil:
			return "", err
		case ctx.Err() != nil:
			return "", errors.New("no proxy counts requests that arrive by mutual TLS (istio_requests_total, connection_security_policy)")
		}
	}
}
