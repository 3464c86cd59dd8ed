// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package secrets

import (
	"crypto/tls"
	"fmt"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// suite finds a cipher suite of TLS 1.2 by its name in BoringSSL.
func suite(name string) (uint16, bool) {
	switch name {
	case "ECDHE-ECDSA-AES128-GCM-SHA256":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, true
	case "ECDHE-RSA-AES128-GCM-SHA256":
		return tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, true
	case "ECDHE-ECDSA-AES256-GCM-SHA384":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, true
	case "ECDHE-RSA-AES256-GCM-SHA384":
		return tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, true
	case "ECDHE-ECDSA-CHACHA20-POLY1305":
		return tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, true
	case "ECDHE-RSA-CHACHA20-POLY1305":
		return tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, true
	case "ECDHE-ECDSA-AES128-SHA":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, true
	case "ECDHE-RSA-AES128-SHA":
		return tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, true
	case "ECDHE-ECDSA-AES256-SHA":
		return tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, true
	case "ECDHE-RSA-AES256-SHA":
		return tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, true
	case "AES128-GCM-SHA256":
		return tls.TLS_RSA_WITH_AES_128_GCM_SHA256, true
	case "AES256-GCM-SHA384":
		return tls.TLS_RSA_WITH_AES_256_GCM_SHA384, true
	case "AES128-SHA":
		return tls.TLS_RSA_WITH_AES_128_CBC_SHA, true
	case "AES256-SHA":
		return tls.TLS_RSA_WITH_AES_256_CBC_SHA, true
	}
	return 0, false
}

func curve(name string) (tls.CurveID, bool) {
	switch name {
	case "X25519":
		return tls.X25519, true
	case "P-256":
		return tls.CurveP256, true
	case "P-384":
		return tls.CurveP384, true
	case "P-521":
		return tls.CurveP521, true
	case "X25519MLKEM768":
		return tls.X25519MLKEM768, true
	}
	return 0, false
}

func version(v tlsv3.TlsParameters_TlsProtocol, auto uint16) (uint16, error) {
	switch v {
	case tlsv3.TlsParameters_TLS_AUTO:
		return auto, nil
	case tlsv3.TlsParameters_TLSv1_0:
		return tls.VersionTLS10, nil
	case tlsv3.TlsParameters_TLSv1_1:
		return tls.VersionTLS11, nil
	case tlsv3.TlsParameters_TLSv1_2:
		return tls.VersionTLS12, nil
	case tlsv3.TlsParameters_TLSv1_3:
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("TLS version %s is not known", v)
}

// setParams applies tls_params. Cipher suites concern TLS 1.2 alone.
func setParams(c *tls.Config, p *tlsv3.TlsParameters) (err error) {
	if c.MinVersion, err = version(p.GetTlsMinimumProtocolVersion(), tls.VersionTLS12); err != nil {
		return err
	}
	if c.MaxVersion, err = version(p.GetTlsMaximumProtocolVersion(), tls.VersionTLS13); err != nil {
		return err
	}
	if c.MinVersion > c.MaxVersion {
		return fmt.Errorf("tls_minimum_protocol_version %s is above the maximum %s", tls.VersionName(c.MinVersion), tls.VersionName(c.MaxVersion))
	}
	for _, group := range p.GetCipherSuites() {
		// "[A|B]" are suites of equal preference.
		for name := range strings.SplitSeq(strings.Trim(group, "[]"), "|") {
			id, ok := suite(name)
			if !ok {
				return fmt.Errorf("cipher suite %q is not supported", name)
			}
			c.CipherSuites = append(c.CipherSuites, id)
		}
	}
	for _, name := range p.GetEcdhCurves() {
		id, ok := curve(name)
		if !ok {
			return fmt.Errorf("curve %q is not supported", name)
		}
		c.CurvePreferences = append(c.CurvePreferences, id)
	}
	return nil
}
