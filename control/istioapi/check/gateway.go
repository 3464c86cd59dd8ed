// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	networking "istio.io/api/networking/v1alpha3"
)

// gateway checks a Gateway.
func (c *checker) gateway(o *source.Object[*source.Gateway]) {
	if len(o.Spec.Servers) == 0 {
		c.errorf("spec.servers", "at least one server is wanted")
	}
	c.labels("spec.selector", o.Spec.Selector)
	if len(o.Spec.Selector) == 0 {
		c.warnf("spec.selector", "is empty, so every gateway proxy of the mesh opens these ports")
	}
	names := map[string]bool{}
	for i, s := range o.Spec.Servers {
		path := at("spec.servers[%d]", i)
		if s == nil {
			c.errorf(path, "the server is empty")
			continue
		}
		c.server(path, s)
		if s.Name != "" && names[s.Name] {
			c.errorf(path+".name", "%q is there twice", s.Name)
		}
		names[s.Name] = true
	}
}

func (c *checker) server(path string, s *networking.Server) {
	var proto mesh.Protocol
	if s.Port == nil {
		c.errorf(path+".port", "is missing")
	} else {
		c.port(path+".port.number", s.Port.Number, false)
		proto = c.protocol(path+".port.protocol", s.Port.Protocol)
		if s.Port.Name == "" {
			c.errorf(path+".port.name", "is missing")
		}
		if s.Port.TargetPort != 0 {
			c.unsupported(path + ".port.targetPort")
		}
	}
	if s.DefaultEndpoint != "" {
		c.unsupported(path + ".defaultEndpoint")
	}
	c.bind(path+".bind", s.Bind)
	if len(s.Hosts) == 0 {
		c.errorf(path+".hosts", "at least one host is wanted")
	}
	for i, h := range s.Hosts {
		field := at("%s.hosts[%d]", path, i)
		ns, host, ok := strings.Cut(h, "/")
		if !ok {
			ns, host = "*", h
		}
		if ns != "*" && ns != "." && !nameForm.MatchString(ns) {
			c.errorf(field, "%q is no namespace", ns)
		}
		c.host(field, host, true, false)
	}
	c.serverTLS(path+".tls", s.Tls, proto)
}

func (c *checker) protocol(field, text string) mesh.Protocol {
	p, ok := mesh.ParseProtocol(text)
	if !ok || p == mesh.UDP {
		c.errorf(field, "%q is none of HTTP, HTTPS, GRPC, GRPC-Web, HTTP2, MONGO, TCP and TLS", text)
	}
	return p
}

func (c *checker) bind(field, bind string) {
	if bind == "" || strings.HasPrefix(bind, "unix:///") {
		return
	}
	if _, err := netip.ParseAddr(bind); err != nil {
		c.errorf(field, "%q is neither an address nor unix:///path", bind)
	}
}

func (c *checker) serverTLS(path string, t *networking.ServerTLSSettings, proto mesh.Protocol) {
	secure := proto == mesh.HTTPS || proto == mesh.TLS
	if t == nil {
		if secure {
			c.errorf(path, "a server of protocol %s needs TLS settings", proto)
		}
		return
	}
	if t.HttpsRedirect && secure {
		c.errorf(path+".httpsRedirect", "is for plaintext servers; this one is %s", proto)
	}
	if !t.HttpsRedirect && !secure && proto != mesh.Unset {
		c.errorf(path, "a server of protocol %s has no TLS; HTTPS or TLS is wanted", proto)
	}
	if t.HttpsRedirect {
		return
	}
	files := t.ServerCertificate != "" || t.PrivateKey != "" || t.CaCertificates != "" || len(t.TlsCertificates) > 0
	secrets := t.CredentialName != "" || len(t.CredentialNames) > 0
	if t.Mode == networking.ServerTLSSettings_AUTO_PASSTHROUGH {
		c.partf(path+".mode", "AUTO_PASSTHROUGH is not supported yet: this server is not opened")
	}
	switch t.Mode {
	case networking.ServerTLSSettings_PASSTHROUGH, networking.ServerTLSSettings_AUTO_PASSTHROUGH, networking.ServerTLSSettings_ISTIO_MUTUAL:
		if files || secrets {
			c.errorf(path, "mode %s takes no certificates", t.Mode)
		}
	default:
		c.certificates(path, t, files, secrets)
	}
	for field, v := range map[string]networking.ServerTLSSettings_TLSProtocol{"minProtocolVersion": t.MinProtocolVersion, "maxProtocolVersion": t.MaxProtocolVersion} {
		if v == networking.ServerTLSSettings_TLSV1_0 || v == networking.ServerTLSSettings_TLSV1_1 {
			c.warnf(path+"."+field, "%s is broken; TLSV1_2 is the least that is safe", v)
		}
	}
	if t.MaxProtocolVersion != 0 && t.MinProtocolVersion > t.MaxProtocolVersion {
		c.errorf(path+".minProtocolVersion", "is above maxProtocolVersion")
	}
	for i, s := range t.CipherSuites {
		if !slices.Contains(cipherSuites, s) || slices.Contains(t.CipherSuites[:i], s) {
			c.warnf(at("%s.cipherSuites[%d]", path, i), "%q is not known or there twice, and left out", s)
		}
	}
}

func (c *checker) certificates(path string, t *networking.ServerTLSSettings, files, secrets bool) {
	if secrets || t.CaCertCredentialName != "" {
		c.partf(path, "certificates from secrets are not supported yet: connections to this server are closed; name files instead")
	}
	needsCA := t.Mode == networking.ServerTLSSettings_MUTUAL || t.Mode == networking.ServerTLSSettings_OPTIONAL_MUTUAL
	switch {
	case files && secrets:
		c.errorf(path, "certificates come from files or from secrets, not from both")
	case !files && !secrets:
		c.errorf(path, "mode %s needs a certificate: credentialName, or serverCertificate and privateKey", t.Mode)
	case t.CredentialName != "" && len(t.CredentialNames) > 0:
		c.errorf(path+".credentialNames", "cannot stand together with credentialName")
	case len(t.CredentialNames) > 2:
		c.errorf(path+".credentialNames", "at most two are wanted, one RSA and one ECDSA")
	case len(t.TlsCertificates) > 2:
		c.errorf(path+".tlsCertificates", "at most two are wanted, one RSA and one ECDSA")
	case len(t.TlsCertificates) > 0 && (t.ServerCertificate != "" || t.PrivateKey != ""):
		c.errorf(path+".tlsCertificates", "cannot stand together with serverCertificate and privateKey")
	case files && len(t.TlsCertificates) == 0 && (t.ServerCertificate == "" || t.PrivateKey == ""):
		c.errorf(path, "serverCertificate and privateKey belong together")
	}
	for i, f := range t.TlsCertificates {
		if f.GetServerCertificate() == "" || f.GetPrivateKey() == "" {
			c.errorf(at("%s.tlsCertificates[%d]", path, i), "serverCertificate and privateKey belong together")
		}
	}
	if needsCA && files && t.CaCertificates == "" && !slices.ContainsFunc(t.TlsCertificates, func(f *networking.ServerTLSSettings_TLSCertificate) bool {
		return f.GetCaCertificates() != ""
	}) {
		c.errorf(path+".caCertificates", "mode %s needs them to verify clients", t.Mode)
	}
}

// cipherSuites are those that a gateway may be told to use.
var cipherSuites = []string{
	"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
	"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
	"ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA",
	"AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA", "DES-CBC3-SHA",
}
