// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/netio/netns"
)

// A Member is one workload, or the gateway, and its proxy: what it is, and where it lives.
type Member struct {
	Name      string // unique in its namespace
	Namespace string
	Account   string // service account
	Labels    map[string]string
	Gateway   bool

	// Service is what callers call it. Port is the service's port, if Run has to declare the service.
	Service string
	Port    uint16
	// Protocol is what the port carries; Unset: that is found out from what the first bytes of a connection are.
	Protocol mesh.Protocol

	// Addr is the address it is registered with.
	Addr netip.Addr
	// App is where the application listens. Inbound is the port of Addr that callers dial: App's with
	// capture, the proxy's own without.
	App     netip.AddrPort
	Inbound uint16
	// HTTPProxy is the proxy's port for the application's own calls, without capture.
	HTTPProxy uint16
	// Admin is the proxy's admin port on loopback, inside Space.
	Admin uint16
	// Space is where application and proxy run; zero means here.
	Space netns.Namespace
}

// LabelMember tells members apart whose other labels are the same.
const LabelMember = "meltemi.io/member"

// nameForm is what names of members, services and namespaces look like (RFC 1123 labels).
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func checkName(what, name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%s %q: use lower-case letters, digits and dashes, at most 63", what, name)
	}
	return nil
}

// newMember describes a workload of service in version.
func newMember(namespace, service, version, account string) Member {
	m := Member{
		Namespace: namespace,
		Service:   service,
		Account:   account,
		Name:      service,
		Labels:    map[string]string{mesh.LabelApp: service},
	}
	if version != "" {
		m.Name += "-" + version
		m.Labels[mesh.LabelVersion] = version
	}
	if m.Account == "" {
		m.Account = string(mesh.DefaultServiceAccount)
	}
	return m
}

// gatewayMember describes the ingress gateway, under Istio's names.
func gatewayMember() Member {
	return Member{
		Name:      "istio-ingressgateway",
		Namespace: "istio-system",
		Account:   "istio-ingressgateway-service-account",
		Labels:    map[string]string{mesh.LabelApp: "istio-ingressgateway", "istio": "ingressgateway"},
		Gateway:   true,
	}
}

// labels returns m's labels with the one that is its own.
func (m *Member) labels() map[string]string {
	ls := maps.Clone(m.Labels)
	ls[LabelMember] = m.Name
	return ls
}

// ID is m's name across namespaces, fit for files and network namespaces.
func (m *Member) ID() string {
	if m.Namespace == "default" || m.Gateway {
		return m.Name
	}
	return m.Namespace + "." + m.Name
}

// identity is what m's certificate says.
func (m *Member) identity() mesh.Identity {
	return mesh.Identity{
		TrustDomain:    mesh.DefaultTrustDomain,
		Namespace:      mesh.Namespace(m.Namespace),
		ServiceAccount: mesh.ServiceAccount(m.Account),
	}
}

// captured reports whether m's traffic is captured.
func (m *Member) captured() bool { return m.HTTPProxy == 0 && !m.Gateway }
