// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package secrets

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/meltemi/meltemi/match"
)

// A verifier decides whether a peer's chain is accepted. Each list is a choice:
// one match suffices. An empty list accepts.
type verifier struct {
	trust []source // all roots of all sources; empty: the chain is not verified
	names []name
	spki  [][sha256.Size]byte
	certs [][sha256.Size]byte
	usage x509.ExtKeyUsage
	depth int // greatest number of intermediates; -1: any
	// byServerName checks the DNS names against the SNI that was sent (auto_san_validation).
	byServerName bool
	// acceptUntrusted lets any chain pass: it proves nothing then.
	acceptUntrusted bool
}

type nameKind uint8

const (
	anyName nameKind = iota // match_subject_alt_names: any kind
	dnsName
	uriName
	emailName
	ipName
)

type name struct {
	kind nameKind
	text match.String
}

// StringOf compiles an Envoy StringMatcher.
type StringOf func(*matcherv3.StringMatcher) (match.String, error)

func newVerifier(c *tlsv3.CertificateValidationContext, usage x509.ExtKeyUsage, compile StringOf) (*verifier, error) {
	v := &verifier{usage: usage, depth: -1}
	if d := c.GetMaxVerifyDepth(); d != nil {
		v.depth = int(d.GetValue())
	}
	v.acceptUntrusted = c.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED
	for _, m := range c.GetMatchSubjectAltNames() {
		text, err := compile(m)
		if err != nil {
			return nil, fmt.Errorf("match_subject_alt_names: %w", err)
		}
		v.names = append(v.names, name{anyName, text})
	}
	for _, m := range c.GetMatchTypedSubjectAltNames() {
		text, err := compile(m.GetMatcher())
		if err != nil {
			return nil, fmt.Errorf("match_typed_subject_alt_names: %w", err)
		}
		kind, ok := map[tlsv3.SubjectAltNameMatcher_SanType]nameKind{
			tlsv3.SubjectAltNameMatcher_DNS: dnsName, tlsv3.SubjectAltNameMatcher_URI: uriName,
			tlsv3.SubjectAltNameMatcher_EMAIL: emailName, tlsv3.SubjectAltNameMatcher_IP_ADDRESS: ipName,
		}[m.GetSanType()]
		if !ok {
			return nil, fmt.Errorf("match_typed_subject_alt_names: san_type %s is not supported", m.GetSanType())
		}
		v.names = append(v.names, name{kind, text})
	}
	for _, s := range c.GetVerifyCertificateSpki() {
		sum, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("verify_certificate_spki %q is no SHA-256 in base64", s)
		}
		v.spki = append(v.spki, [sha256.Size]byte(sum))
	}
	for _, s := range c.GetVerifyCertificateHash() {
		sum, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("verify_certificate_hash %q is no SHA-256 in hex", s)
		}
		v.certs = append(v.certs, [sha256.Size]byte(sum))
	}
	return v, nil
}

// proves says whether a chain that is accepted proves who the peer is.
func (v *verifier) proves() bool {
	return !v.acceptUntrusted && (len(v.trust) > 0 || len(v.spki)+len(v.certs) > 0)
}

// check is a tls.Config.VerifyConnection. A peer without a certificate passes
// here: whether it needs one is said by ClientAuth.
func (v *verifier) check(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 || v.acceptUntrusted {
		return nil
	}
	leaf := cs.PeerCertificates[0]
	if len(v.trust) > 0 {
		if err := v.chain(cs.PeerCertificates); err != nil {
			return fmt.Errorf("the peer's certificate is not trusted: %w", err)
		}
	}
	if len(v.names) > 0 && !v.named(leaf) {
		return fmt.Errorf("the peer's certificate has none of the %d names accepted here; it has %s", len(v.names), namesOf(leaf))
	}
	if v.byServerName {
		if err := leaf.VerifyHostname(cs.ServerName); err != nil {
			return fmt.Errorf("the peer's certificate: %w", err)
		}
	}
	if len(v.spki)+len(v.certs) > 0 && !v.pinned(leaf) {
		return errors.New("the peer's certificate is not one of those pinned by verify_certificate_hash or _spki")
	}
	return nil
}

func (v *verifier) chain(chain []*x509.Certificate) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	var last error
	for _, t := range v.trust {
		roots, err := t.roots()
		if err != nil {
			return err
		}
		if roots == nil { // x509 would take the system's
			return errors.New("there are no roots to verify by")
		}
		chains, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{v.usage}})
		if err == nil {
			return v.shallow(chains)
		}
		last = err
	}
	return last
}

func (v *verifier) shallow(chains [][]*x509.Certificate) error {
	for _, c := range chains {
		if v.depth < 0 || len(c)-2 <= v.depth {
			return nil
		}
	}
	return fmt.Errorf("its chain has more than %d intermediates", v.depth)
}

func (v *verifier) named(leaf *x509.Certificate) bool {
	for i := range v.names {
		if v.names[i].matches(leaf) {
			return true
		}
	}
	return false
}

func (n *name) matches(leaf *x509.Certificate) bool {
	is := func(kind nameKind) bool { return n.kind == kind || n.kind == anyName }
	if is(uriName) {
		for _, u := range leaf.URIs {
			if n.text.Match(u.String()) {
				return true
			}
		}
	}
	if is(dnsName) {
		for _, d := range leaf.DNSNames {
			if n.text.Match(d) || n.text.Kind() == match.KindExact && wildcard(d, n.text.Value()) {
				return true
			}
		}
	}
	if is(emailName) {
		for _, e := range leaf.EmailAddresses {
			if n.text.Match(e) {
				return true
			}
		}
	}
	if is(ipName) {
		for _, ip := range leaf.IPAddresses {
			if n.text.Match(ip.String()) {
				return true
			}
		}
	}
	return false
}

// wildcard says whether a certificate's "*.example.com" covers host: the asterisk
// stands for exactly one label, and at least two must follow it.
func wildcard(pattern, host string) bool {
	suffix, ok := strings.CutPrefix(pattern, "*.")
	if !ok || strings.Contains(suffix, "*") || !strings.Contains(suffix, ".") {
		return false
	}
	label, rest, ok := strings.Cut(host, ".")
	return ok && label != "" && match.EqualFold(rest, suffix)
}

func (v *verifier) pinned(leaf *x509.Certificate) bool {
	spki, whole := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw)
	for i := range v.spki {
		if v.spki[i] == spki {
			return true
		}
	}
	for i := range v.certs {
		if v.certs[i] == whole {
			return true
		}
	}
	return false
}

func namesOf(c *x509.Certificate) string {
	var all []string
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	all = append(all, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "none"
	}
	if len(all) > 8 {
		all = append(all[:8], "…")
	}
	return fmt.Sprintf("%q", all)
}
