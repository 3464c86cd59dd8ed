// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"strings"
)

// Protocol is what a port carries. The zero value, Unset, means that nobody
// said: the proxy looks at the first bytes.
type Protocol uint8

const (
	Unset Protocol = iota
	HTTP
	HTTP2
	GRPC
	GRPCWeb
	HTTPProxy // a forward proxy: absolute-form requests and CONNECT
	TCP
	TLS
	HTTPS
	Mongo
	MySQL
	Redis
	UDP
)

var protocolNames = [...]string{
	Unset:     "",
	HTTP:      "HTTP",
	HTTP2:     "HTTP2",
	GRPC:      "GRPC",
	GRPCWeb:   "GRPC-Web",
	HTTPProxy: "HTTP_PROXY",
	TCP:       "TCP",
	TLS:       "TLS",
	HTTPS:     "HTTPS",
	Mongo:     "Mongo",
	MySQL:     "MySQL",
	Redis:     "Redis",
	UDP:       "UDP",
}

// String is the protocol as Istio writes it; "Unset" for Unset.
func (p Protocol) String() string {
	if p == Unset {
		return "Unset"
	}
	if int(p) < len(protocolNames) {
		return protocolNames[p]
	}
	return fmt.Sprintf("Protocol(%d)", uint8(p))
}

// ParseProtocol reads a protocol's name in any case, as in Gateway and
// ServiceEntry ports; ok is false for a name that is none.
func ParseProtocol(s string) (p Protocol, ok bool) {
	for i, name := range protocolNames {
		if i != int(Unset) && strings.EqualFold(s, name) {
			return Protocol(i), true
		}
	}
	return Unset, false
}

// PortProtocol applies Istio's protocol selection to a service port: UDP stays
// UDP; appProtocol, if given, wins over the port's name; of the name, what
// precedes the first dash counts; a port that is still Unset but known to carry
// a protocol whose server speaks first is TCP, because sniffing it would hang.
func PortProtocol(port int, name, appProtocol string, udp bool) Protocol {
	if udp {
		return UDP
	}
	if appProtocol != "" {
		switch appProtocol {
		case "kubernetes.io/h2c":
			return HTTP2
		case "kubernetes.io/ws":
			return HTTP
		case "kubernetes.io/wss":
			return HTTPS
		}
		name = appProtocol
	}
	const web = "grpc-web"
	if len(name) >= len(web) && strings.EqualFold(name[:len(web)], web) {
		return GRPCWeb
	}
	name, _, _ = strings.Cut(name, "-")
	p, ok := ParseProtocol(name)
	if !ok && serverSpeaksFirst(port) {
		return TCP
	}
	return p
}

// serverSpeaksFirst lists SMTP, DNS, MySQL and MongoDB.
func serverSpeaksFirst(port int) bool {
	return port == 25 || port == 53 || port == 3306 || port == 27017
}

// IsHTTP reports whether requests of p can be routed one by one.
func (p Protocol) IsHTTP() bool {
	return p == HTTP || p == HTTP2 || p == GRPC || p == GRPCWeb || p == HTTPProxy
}

// IsHTTP2 reports whether a server of p can be talked to in HTTP/2.
func (p Protocol) IsHTTP2() bool { return p == HTTP2 || p == GRPC || p == GRPCWeb }

// IsTLS reports whether p begins with a ClientHello, so that SNI can route it.
func (p Protocol) IsTLS() bool { return p == TLS || p == HTTPS }

// IsTCP reports whether p is relayed as bytes.
func (p Protocol) IsTCP() bool {
	return p == TCP || p == TLS || p == HTTPS || p == Mongo || p == MySQL || p == Redis
}
