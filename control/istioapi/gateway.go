// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"strings"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
	networking "istio.io/api/networking/v1alpha3"
)

type gatewayObject = *source.Object[*source.Gateway]

func (p compiler) gatewaySelector(_ source.Key, o gatewayObject) mesh.Labels { return o.Spec.Selector }

// gateway compiles a Gateway.
func (p compiler) gateway(k source.Key, o gatewayObject) *intent.Gateway {
	gw := &intent.Gateway{Object: k, Selector: o.Spec.Selector}
	for i, s := range o.Spec.Servers {
		proto, _ := mesh.ParseProtocol(s.Port.Protocol)
		srv := &intent.Server{
			Origin: source.Origin{Object: k, Field: at("spec.servers[%d]", i)}, Index: i, Gateway: gw.Name(), Name: s.Name,
			Port: int(s.Port.Number), PortName: s.Port.Name, Protocol: proto, Bind: s.Bind, TLS: serverTLS(s.Tls),
		}
		for _, h := range s.Hosts {
			srv.Hosts = append(srv.Hosts, serverHost(k.Namespace, h))
		}
		gw.Servers = append(gw.Servers, srv)
	}
	return gw
}

// serverHost reads host, ns/host, ./host or */host.
func serverHost(own mesh.Namespace, h string) intent.ServerHost {
	ns, host, ok := strings.Cut(h, "/")
	if !ok {
		ns, host = "*", h
	}
	out := intent.ServerHost{Namespace: mesh.Namespace(ns), Host: mesh.NormalHost(host)}
	switch ns {
	case "*":
		out.Namespace = ""
	case ".":
		out.Namespace = own
	}
	return out
}

func serverTLS(t *networking.ServerTLSSettings) *intent.ServerTLS {
	if t == nil {
		return nil
	}
	out := &intent.ServerTLS{
		Redirect: t.HttpsRedirect, Mode: serverModes[t.Mode], CACredential: t.CaCertCredentialName, CRL: t.CaCrl,
		SubjectAltNames: t.SubjectAltNames, SPKI: t.VerifyCertificateSpki, Hashes: t.VerifyCertificateHash,
		MinVersion: intent.TLSVersion(t.MinProtocolVersion), MaxVersion: intent.TLSVersion(t.MaxProtocolVersion),
		Ciphers: t.CipherSuites, SkipVerify: t.InsecureSkipVerify.GetValue(),
	}
	if t.ServerCertificate != "" || t.CaCertificates != "" {
		out.Certificates = []intent.TLSFiles{{Certificate: t.ServerCertificate, PrivateKey: t.PrivateKey, CA: t.CaCertificates}}
	}
	for _, f := range t.TlsCertificates {
		out.Certificates = append(out.Certificates, intent.TLSFiles{Certificate: f.ServerCertificate, PrivateKey: f.PrivateKey, CA: f.CaCertificates})
	}
	if t.CredentialName != "" {
		out.Credentials = []string{t.CredentialName}
	}
	out.Credentials = append(out.Credentials, t.CredentialNames...)
	return out
}

var serverModes = map[networking.ServerTLSSettings_TLSmode]intent.ServerTLSMode{
	networking.ServerTLSSettings_PASSTHROUGH:      intent.ServerPassthrough,
	networking.ServerTLSSettings_SIMPLE:           intent.ServerSimple,
	networking.ServerTLSSettings_MUTUAL:           intent.ServerMutual,
	networking.ServerTLSSettings_AUTO_PASSTHROUGH: intent.ServerAutoPassthrough,
	networking.ServerTLSSettings_ISTIO_MUTUAL:     intent.ServerMesh,
	networking.ServerTLSSettings_OPTIONAL_MUTUAL:  intent.ServerOptionalMutual,
}
