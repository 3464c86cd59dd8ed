// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sight

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/control/envoy/filter"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// A Client is all that a proxy's configuration depends on. It is comparable: two
// proxies with equal Clients are sent the same, from the same results.
type Client struct {
	View
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
	filter.Features
	Router bool // a gateway
	// Own: one of our proxies.
	Own bool
	// OnDemand: one of ours, which asks for destinations as it meets them.
	OnDemand bool
	// NoCapture: INTERCEPTION_MODE NONE; Transparent: TPROXY.
	NoCapture, Transparent bool
	HTTP10                 bool
	// HTTPProxyPort opens a forward proxy for the application; 0: none.
	HTTPProxyPort uint16
	// IPv6: it has no IPv4 address.
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

// ownAgent is how our proxies call themselves (Node.user_agent_name).
const ownAgent = "meltemi"

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
	// As xds holds it against the identity: nothing but a string.
	ns := mesh.Namespace(meta[metaNamespace].GetStringValue())
	if ns == "" {
		ns = id.Namespace
	}
	labels := mesh.Labels{}
	for k, v := range meta[metaLabels].GetStructValue().GetFields() {
		labels[k] = text(v)
	}
	c := Client{
		Workload: source.Key{Kind: source.KindWorkload, Namespace: ns, Name: id.Name},
		View: View{
			Subject:  intent.NewSubject(ns, labels),
			Network:  text(meta[metaNetwork]),
			Locality: mesh.Locality{Region: n.GetLocality().GetRegion(), Zone: n.GetLocality().GetZone(), SubZone: n.GetLocality().GetSubZone()},
		},
	}
	if e := text(meta[metaEntry]); e != "" {
		c.Workload = source.Key{Kind: source.KindWorkloadEntry, Namespace: ns, Name: e}
	}
	addrs, err := addresses(text(meta[metaInstanceIPs]), id.Addr)
	if err == nil {
		c.Traits, err = traits(n, id.Type, meta)
	}
	if err != nil {
		return Client{}, fmt.Errorf("node %s: %w", n.GetId(), err)
	}
	c.Addrs = strings.Join(addrs, ",")
	c.Traits.IPv6 = !strings.Contains(c.Addrs, ".")
	return c, nil
}

// text reads a value that Istio's agents send as a string, and others perhaps as what it is.
func text(v *structpb.Value) string {
	switch v := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return v.StringValue
	case *structpb.Value_NumberValue:
		return strconv.FormatFloat(v.NumberValue, 'f', -1, 64)
	case *structpb.Value_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	}
	return ""
}

func addresses(list string, own netip.Addr) ([]string, error) {
	var all []string
	for _, s := range strings.Split(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("INSTANCE_IPS: %q is not an IP address", s)
		}
		all = append(all, a.Unmap().String())
	}
	if len(all) == 0 && own.IsValid() {
		all = append(all, own.Unmap().String())
	}
	if len(all) == 0 {
		return nil, errors.New("neither the ID nor INSTANCE_IPS holds an address")
	}
	return all, nil
}

func traits(n *corev3.Node, role mesh.NodeType, meta map[string]*structpb.Value) (Traits, error) {
	t := Traits{
		Features:  filter.FeaturesOf(n.GetExtensions()),
		Router:    role == mesh.Router,
		Own:       n.GetUserAgentName() == ownAgent,
		OnDemand:  role == mesh.Sidecar && text(meta[metaOnDemand]) == "true",
		NoCapture: text(meta[metaInterception]) == "NONE",
		HTTP10:    text(meta[metaHTTP10]) == "1",
	}
	t.Transparent = text(meta[metaInterception]) == "TPROXY"
	if p := text(meta[metaHTTPProxy]); p != "" {
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil || port == 0 {
			return Traits{}, fmt.Errorf("HTTP_PROXY_PORT: %q is not a port", p)
		}
		t.HTTPProxyPort = uint16(port)
	}
	return t, nil
}

// Wildcard is the address that means all of the proxy's IP family.
func (t Traits) Wildcard() string {
	if t.IPv6 {
		return "::"
	}
	return "0.0.0.0"
}

// Loopback is where this machine reaches itself.
func (t Traits) Loopback() string {
	if t.IPv6 {
		return "::1"
	}
	return "127.0.0.1"
}

// PassthroughSource is where inbound connections to the application come from.
func (t Traits) PassthroughSource() string {
	if t.IPv6 {
		return "::6"
	}
	return "127.0.0.6"
}

// Namespace of the client.
func (v View) Namespace() mesh.Namespace { return v.Subject.Namespace }

// Address of the client itself.
func (c Client) Address() string {
	first, _, _ := strings.Cut(c.Addrs, ",")
	return first
}
