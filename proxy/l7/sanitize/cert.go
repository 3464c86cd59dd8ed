// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sanitize

import (
	"encoding/pem"
	"net/url"
	"strings"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

const clientCert = "x-forwarded-client-cert"

// CertElement returns what a connection adds to x-forwarded-client-cert. It is
// the same for all its requests, so it is made once.
func CertElement(conn *filter.Conn, cfg *config.HTTP) string {
	if !conn.Mutual || cfg.ForwardCert != config.CertAppendForward && cfg.ForwardCert != config.CertSanitizeSet {
		return ""
	}
	var parts []string
	add := func(key, value string) { parts = append(parts, key+"="+quoted(value)) }
	for _, u := range conn.Own.URISANs {
		add("By", u)
	}
	if conn.Peer.SHA256 != "" {
		add("Hash", conn.Peer.SHA256)
	}
	certs := conn.TLS
	if cfg.SetCert.Cert && certs != nil && len(certs.PeerCertificates) > 0 {
		parts = append(parts, `Cert="`+encode(certs.PeerCertificates[0].Raw)+`"`)
	}
	if cfg.SetCert.Chain && certs != nil && len(certs.PeerCertificates) > 0 {
		chain := ""
		for _, c := range certs.PeerCertificates {
			chain += encode(c.Raw)
		}
		parts = append(parts, `Chain="`+chain+`"`)
	}
	if cfg.SetCert.Subject {
		parts = append(parts, `Subject="`+escaped(conn.Peer.Subject)+`"`)
	}
	if cfg.SetCert.URI {
		if len(conn.Peer.URISANs) == 0 {
			parts = append(parts, "URI=")
		}
		for _, u := range conn.Peer.URISANs {
			add("URI", u)
		}
	}
	if cfg.SetCert.DNS {
		for _, n := range conn.Peer.DNSSANs {
			add("DNS", n)
		}
	}
	return strings.Join(parts, ";")
}

// cert applies the rule for x-forwarded-client-cert; element is the connection's.
func cert(h *message.Header, cfg *config.HTTP, conn *filter.Conn, element string) {
	if cfg.ForwardCert == config.CertAlwaysForwardOnly {
		return
	}
	if !conn.Mutual || cfg.ForwardCert == config.CertSanitize {
		h.Delete(clientCert)
		return
	}
	switch cfg.ForwardCert {
	case config.CertSanitizeSet:
		h.Set(clientCert, element)
	case config.CertAppendForward:
		if before, ok := h.Joined(clientCert); ok && before != "" {
			h.Set(clientCert, before+","+element)
		} else {
			h.Set(clientCert, element)
		}
	}
}

// quoted quotes a value that could be taken for more than one: what a
// certificate says must not look like another element.
func quoted(s string) string {
	if !strings.ContainsAny(s, ",;=\"\\ \t") && printable(s) {
		return s
	}
	return `"` + escaped(s) + `"`
}

func escaped(s string) string {
	if !printable(s) {
		s = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '?'
			}
			return r
		}, s)
	}
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s)
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// encode is PEM, percent-encoded.
func encode(der []byte) string {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return strings.ReplaceAll(url.QueryEscape(string(text)), "+", "%20")
}
