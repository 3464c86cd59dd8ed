// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"time"
)

// Secrets shows a proxy's certificates and roots; keys are never asked for.
func (m *Mesh) Secrets(ctx context.Context, workload string) error {
	p, err := m.find(workload)
	if err != nil {
		return err
	}
	d, b, err := m.dump(ctx, p)
	if err != nil {
		return err
	}
	if m.JSON {
		return m.raw(b, "SecretsConfigDump")
	}
	t := table{head: []string{"RESOURCE NAME", "TYPE", "STATUS", "VALID", "IDENTITY", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"}}
	for i := range d.secrets {
		s := &d.secrets[i]
		kind, text := "-", []byte(nil)
		switch {
		case s.Secret.TLS != nil:
			kind, text = "Cert Chain", s.Secret.TLS.Chain.bytes()
		case s.Secret.Validation != nil:
			kind, text = "CA", s.Secret.Validation.CA.bytes()
		}
		c := firstCertificate(text)
		if c == nil {
			t.add(s.Name, kind, s.state, "-", "-", "-", "-", "-")
			continue
		}
		now, valid := time.Now(), "true"
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			valid = "false"
		}
		identity := c.Subject.String()
		if len(c.URIs) > 0 {
			identity = c.URIs[0].String()
		}
		t.add(s.Name, kind, s.state, valid, or(identity), c.SerialNumber.Text(16),
			c.NotAfter.UTC().Format(time.RFC3339), c.NotBefore.UTC().Format(time.RFC3339))
	}
	return t.print(m.Out)
}

// firstCertificate is the leaf of a chain, or nil.
func firstCertificate(text []byte) *x509.Certificate {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}
