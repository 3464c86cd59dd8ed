// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// connectHint says what to look at when a connection could not be opened.
func connectHint(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: is targetPort the container's port, and is the process up?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no route to the endpoint: is its network reachable from here?"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no local port is free, or the source address is not ours: see net.ipv4.ip_local_port_range"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "this proxy is out of file descriptors: raise its limit"
	case errors.Is(err, syscall.ENOENT):
		return "the unix socket does not exist: has the process that makes it started?"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "the system forbids the connection: see the socket's mode, and network policy"
	}
	return ""
}

// TLSHint says what to look at when a TLS handshake failed, or "".
func TLSHint(err error) string {
	var notTLS tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	if hint := AlertHint(err); hint != "" {
		return hint
	}
	switch {
	case errors.As(err, &notTLS):
		return "the endpoint answered in plaintext: it has no sidecar, or serves no TLS; see the DestinationRule's tls.mode"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the endpoint's certificate is expired or not yet valid: does it renew, and are clocks right?"
	case errors.As(err, &unknown):
		return "the endpoint's certificate is signed by a CA that is not trusted here: do both sides have the same root?"
	case errors.As(err, &host):
		return "the endpoint's certificate is for another name: see tls.sni and tls.subjectAltNames"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the endpoint hung up during the handshake: it may expect plaintext, or serve nothing for this SNI and ALPN"
	}
	return ""
}

// AlertHint explains what an endpoint said over TLS before it hung up, "" if it
// said nothing.
func AlertHint(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return ""
	}
	alert := op.Err.Error()
	switch {
	case strings.Contains(alert, "certificate required"):
		return "the endpoint wants a client certificate: is tls.mode ISTIO_MUTUAL or MUTUAL?"
	case strings.Contains(alert, "certificate"), strings.Contains(alert, "unknown certificate authority"):
		return "the endpoint refused our certificate: does it trust our root, and our trust domain?"
	case strings.Contains(alert, "protocol version"), strings.Contains(alert, "handshake failure"):
		return "no TLS version or cipher suite suits both sides, or the endpoint wants a client certificate: see tls.mode"
	case strings.Contains(alert, "unrecognized name"):
		return "the endpoint serves nothing for this SNI"
	case strings.Contains(alert, "no application protocol"):
		return "the endpoint speaks none of the protocols offered in ALPN"
	}
	return ""
}
