// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// A Gateway is a set of servers that the proxies it selects open.
type Gateway struct {
	Object   source.Key
	Selector mesh.Labels // across all namespaces; empty: every gateway proxy
	Servers  []*Server
}

// Name is namespace/name.
func (g *Gateway) Name() GatewayName {
	return GatewayName(string(g.Object.Namespace) + "/" + g.Object.Name)
}

// A Server is one listening port of a gateway with the hosts it serves.
type Server struct {
	Origin   source.Origin
	Index    int // in Gateway.Servers
	Gateway  GatewayName
	Name     string
	Port     int
	PortName string
	Protocol mesh.Protocol
	Bind     string // an address or unix:///path; empty: all addresses
	Hosts    []ServerHost
	TLS      *ServerTLS // nil: plaintext
}

// A ServerHost is a host, and the namespace whose objects may route it.
type ServerHost struct {
	Namespace mesh.Namespace // empty: any
	Host      mesh.Hostname
}

// ServerTLSMode is what a server does with TLS.
type ServerTLSMode uint8

const (
	ServerPassthrough ServerTLSMode = iota
	ServerSimple
	ServerMutual
	ServerAutoPassthrough
	ServerMesh // ISTIO_MUTUAL
	ServerOptionalMutual
)

// String is the mode as Istio writes it.
func (m ServerTLSMode) String() string {
	return [...]string{"PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"}[min(int(m), 5)]
}

// ServerTLS is how a server secures connections.
type ServerTLS struct {
	Redirect        bool // httpsRedirect: the server is plaintext and answers 301
	Mode            ServerTLSMode
	Certificates    []TLSFiles
	Credentials     []string // names of secrets: one, or one RSA and one ECDSA
	CACredential    string
	CRL             string
	SubjectAltNames []string
	SPKI, Hashes    []string
	MinVersion      TLSVersion
	MaxVersion      TLSVersion
	Ciphers         []string
	SkipVerify      bool
}

// TLSFiles are paths in the proxy.
type TLSFiles struct{ Certificate, PrivateKey, CA string }

// TLSVersion is a version of TLS.
type TLSVersion uint8

const (
	TLSAuto TLSVersion = iota
	TLS10
	TLS11
	TLS12
	TLS13
)

// A Listener is one port of a gateway proxy with the servers of all Gateways that share it.
type Listener struct {
	Port    int
	Bind    string
	Servers []*Server // in the order of their objects; no two that look at TLS claim one host
	Dropped []Dropped
}

// A Dropped server, or some hosts of one, lost against another server of the same port.
type Dropped struct {
	Server *Server
	Hosts  []mesh.Hostname // empty: the whole server
	Winner *Server
}

// A VirtualHost is a host of a gateway with its routes merged over all objects.
type VirtualHost struct {
	Host   mesh.Hostname
	Routes []HTTPRoute // at most one matches everything, and it is last
	// Redirect: plaintext requests are sent to HTTPS.
	Redirect bool
}
