// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// A Client is all that a proxy's configuration depends on. It is comparable: two
// proxies with equal Clients are sent the same, from the same results.
type Client struct {
	View
	Role     mesh.NodeType
	Workload source.Key // what the proxy stands beside: Workload or WorkloadEntry
	Addrs    string     // its addresses, comma-separated, the first one is its own
}

// A View is the part of a Client that outbound configuration depends on; all
// replicas of a workload in one place share it.
type View struct {
	Subject  intent.Subject
	Locality mesh.Locality
	Network  string
	Traits   Traits
}

// Traits are what a proxy can do and how it is set up.
type Traits struct {
	Router bool // a gateway
	// OnDemand: one of ours, which asks for destinations as it meets them.
	OnDemand bool
	// Filters of Istio's that the proxy says it has.
	Stats, ALPN, PeerMetadata bool
	// NoCapture: INTERCEPTION_MODE NONE; Transparent: TPROXY.
	NoCapture, Transparent bool
	HTTP10                 bool
	// HTTPProxyPort opens a forward proxy for the application; 0: none.
	HTTPProxyPort uint16
	// LocalSecrets: the workload's certificate comes from an agent's socket
	// (cluster sds-grpc). Our proxies hold their own and read the same names.
	IPv6 bool
}

// Keys of node metadata (Istio's, and ours below meltemi.io's name).
const (
	metaNamespace    = "NAMESPACE"
	metaLabels       = "LABELS"
	metaInstanceIPs  = "INSTANCE_IPS"
	metaInterception = "INTERCEPTION_MODE"
	metaHTTPProxy    = "HTTP_PROXY_PORT"
	metaHTTP10       = "HTTP10"
	metaNetwork      = "NETWORK"
	metaEntry        = "WORKLOAD_ENTRY"
	metaOnDemand     = "MELTEMI_ON_DEMAND"
)

// Names of Istio's filters, as a client lists them in Node.extensions.
const (
	filterStats        = "istio.stats"
	filterALPN         = "istio.alpn"
	filterPeerMetadata = "istio.metadata_exchange"
)

// ParseClient reads what a proxy says of itself. The error says what is wrong
// with its node.
func ParseClient(n *corev3.Node) (Client, error) {
	id, err := mesh.ParseNodeID(n.GetId())
	if err != nil {
		return Client{}, err
	}
	switch id.Type {
	case mesh.Sidecar, mesh.Router:
	default:
		return Client{}, fmt.Errorf("node %s: proxies of type %s are not served here", n.GetId(), id.Type)
	}
	meta := n.GetMetadata().GetFields()
	text := func(key string) string { return meta[key].GetStringValue() }
	ns := mesh.Namespace(text(metaNamespace))
	if ns == "" {
		ns = id.Namespace
	}
	labels := mesh.Labels{}
	for k, v := range meta[metaLabels].GetStructValue().GetFields() {
		labels[k] = v.GetStringValue()
	}
	c := Client{
		Role:     id.Type,
		Workload: source.Key{Kind: source.KindWorkload, Namespace: ns, Name: id.Name},
		View: View{
			Subject:  intent.NewSubject(ns, labels),
			Network:  text(metaNetwork),
			Locality: mesh.Locality{Region: n.GetLocality().GetRegion(), Zone: n.GetLocality().GetZone(), SubZone: n.GetLocality().GetSubZone()},
		},
	}
	if e := text(metaEntry); e != "" {
		c.Workload = source.Key{Kind: source.KindWorkloadEntry, Namespace: ns, Name: e}
	}
	if c.Addrs, err = addresses(text(metaInstanceIPs), id.Addr); err != nil {
		return Client{}, fmt.Errorf("node %s: %w", n.GetId(), err)
	}
	c.Traits, err = traits(n, id.Type, text)
	if err != nil {
		return Client{}, fmt.Errorf("node %s: %w", n.GetId(), err)
	}
	first, _, _ := strings.Cut(c.Addrs, ",")
	c.Traits.IPv6 = strings.Contains(first, ":")
	return c, nil
}

func addresses(list string, own netip.Addr) (string, error) {
	var all []string
	for _, s := range strings.Split(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return "", fmt.Errorf("INSTANCE_IPS: %q is not an IP address", s)
		}
		all = append(all, a.Unmap().String())
	}
	if len(all) == 0 && own.IsValid() {
		all = append(all, own.Unmap().String())
	}
	if len(all) == 0 {
		return "", fmt.Errorf("neither the ID nor INSTANCE_IPS holds an address")
	}
	return strings.Join(all, ","), nil
}

func traits(n *corev3.Node, role mesh.NodeType, text func(string) string) (Traits, error) {
	t := Traits{
		Router:      role == mesh.Router,
		OnDemand:    role == mesh.Sidecar && text(metaOnDemand) == "true",
		NoCapture:   text(metaInterception) == "NONE",
		Transparent: text(metaInterception) == "TPROXY",
		HTTP10:      text(metaHTTP10) == "1",
	}
	for _, e := range n.GetExtensions() {
		switch e.GetName() {
		case filterStats:
			t.Stats = true
		case filterALPN:
			t.ALPN = true
		case filterPeerMetadata:
			t.PeerMetadata = true
		}
	}
	if p := text(metaHTTPProxy); p != "" {
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil || port == 0 {
			return Traits{}, fmt.Errorf("HTTP_PROXY_PORT: %q is not a port", p)
		}
		t.HTTPProxyPort = uint16(port)
	}
	return t, nil
}

// Wildcard is the address that means all of the proxy's IP family.
func (t Traits) wildcard() string {
	if t.IPv6 {
		return "::"
	}
	return "0.0.0.0"
}

func (t Traits) loopback() string {
	if t.IPv6 {
		return "::1"
	}
	return "127.0.0.1"
}

// PassthroughSource is where inbound connections to the application come from.
func (t Traits) passthroughSource() string {
	if t.IPv6 {
		return "::6"
	}
	return "127.0.0.6"
}

// namespace of the client.
func (v View) namespace() mesh.Namespace { return v.Subject.Namespace }

func stringStruct(m map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(m))}
	for k, v := range m {
		s.Fields[k] = structpb.NewStringValue(v)
	}
	return s
}
