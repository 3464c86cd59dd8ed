// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/filter/stock"
)

// A Node is who the proxy is.
type Node struct {
	Role           mesh.NodeType // Sidecar unless set
	Name           string        // of the pod, process or machine
	Namespace      mesh.Namespace
	ServiceAccount mesh.ServiceAccount
	TrustDomain    mesh.TrustDomain
	Labels         mesh.Labels
	Addrs          []netip.Addr
	Workload       string // name of what owns it; Name unless set
	Entry          string // WorkloadEntry that describes it
	Cluster        string
	Locality       mesh.Locality
	Network        string

	// OnDemand asks for destinations as they are met, not for the whole mesh.
	OnDemand bool
	// NoCapture: the application dials the proxy; HTTPProxyPort is where.
	NoCapture     bool
	HTTPProxyPort uint16
	// Extra is added to the node's metadata.
	Extra map[string]string
}

func (n *Node) role() mesh.NodeType {
	if n.Role == "" {
		return mesh.Sidecar
	}
	return n.Role
}

// Identity is who the proxy is to its peers.
func (n *Node) Identity() mesh.Identity {
	id := mesh.Identity{TrustDomain: n.TrustDomain, Namespace: n.Namespace, ServiceAccount: n.ServiceAccount}
	if id.TrustDomain == "" {
		id.TrustDomain = mesh.DefaultTrustDomain
	}
	if id.ServiceAccount == "" {
		id.ServiceAccount = mesh.DefaultServiceAccount
	}
	return id
}

func (n *Node) id() string {
	id := mesh.NodeID{Type: n.role(), Name: n.Name, Namespace: n.Namespace}
	if len(n.Addrs) > 0 {
		id.Addr = n.Addrs[0]
	}
	return id.String()
}

func (n *Node) workload() string {
	if n.Workload != "" {
		return n.Workload
	}
	return n.Name
}

// cluster is the service cluster, as tracing names it.
func (n *Node) cluster() string {
	return mesh.CanonicalService(n.Labels, n.workload()) + "." + string(n.Namespace)
}

// metadata is what the control plane reads; every value is a string, as Istio's
// agents send them.
func (n *Node) metadata() map[string]any {
	var addrs []string
	for _, a := range n.Addrs {
		addrs = append(addrs, a.String())
	}
	labels := map[string]any{}
	for k, v := range n.Labels {
		labels[k] = v
	}
	m := map[string]any{
		"NAMESPACE": string(n.Namespace), "SERVICE_ACCOUNT": string(n.Identity().ServiceAccount), "NAME": n.Name,
		"WORKLOAD_NAME": n.workload(), "LABELS": labels, "INSTANCE_IPS": strings.Join(addrs, ","),
	}
	put := func(key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	put("CLUSTER_ID", n.Cluster)
	put("NETWORK", n.Network)
	put("WORKLOAD_ENTRY", n.Entry)
	if n.NoCapture {
		put("INTERCEPTION_MODE", "NONE")
	}
	if n.HTTPProxyPort != 0 {
		put("HTTP_PROXY_PORT", strconv.Itoa(int(n.HTTPProxyPort)))
	}
	if n.OnDemand {
		put("MELTEMI_ON_DEMAND", "true")
	}
	for k, v := range n.Extra {
		put(k, v)
	}
	return m
}

// node is the same as xDS sends it.
func (n *Node) node() (*corev3.Node, error) {
	md, err := structpb.NewStruct(n.metadata())
	if err != nil {
		return nil, err
	}
	out := &corev3.Node{
		Id: n.id(), Cluster: n.cluster(), Metadata: md, UserAgentName: "meltemi",
		Locality: &corev3.Locality{Region: n.Locality.Region, Zone: n.Locality.Zone, SubZone: n.Locality.SubZone},
	}
	for _, k := range stock.Table() {
		out.Extensions = append(out.Extensions, &corev3.Extension{Name: k.Name, Category: k.Category})
	}
	return out, nil
}

func (n *Node) dump() config.Node {
	return config.Node{ID: n.id(), Cluster: n.cluster(), Metadata: n.metadata()}
}

// peer is what other workloads and our own metrics call us.
func (n *Node) peer() *filter.Peer {
	return &filter.Peer{
		ID: n.id(), Name: n.Name, Namespace: string(n.Namespace), Workload: n.workload(), WorkloadType: "pod",
		Cluster: n.Cluster, Identity: n.Identity().String(),
		CanonicalName: mesh.CanonicalService(n.Labels, n.workload()), CanonicalRevision: mesh.CanonicalRevision(n.Labels),
		App: n.Labels[mesh.LabelApp], Version: n.Labels[mesh.LabelVersion],
		Region: n.Locality.Region, Zone: n.Locality.Zone,
	}
}

// difference lists what is in next and not in prev, both sorted.
func difference(next, prev []string) []string {
	have := maps.Collect(func(yield func(string, bool) bool) {
		for _, p := range prev {
			if !yield(p, true) {
				return
			}
		}
	})
	return slices.DeleteFunc(slices.Clone(next), func(s string) bool { return have[s] })
}
