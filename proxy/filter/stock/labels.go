// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"crypto/x509"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
)

const (
	unknown = "unknown"
	latest  = "latest"
)

// A Reporter is which end of an exchange we are.
type Reporter uint8

// The reporters; the first asks the listener's direction.
const (
	ReporterByDirection Reporter = iota
	ReporterWaypoint
)

type protocol uint8

const (
	protocolTCP protocol = iota
	protocolHTTP
	protocolGRPC
)

// special is a route or cluster that stands for a kind of destination instead of a service.
type special uint8

const (
	ordinary special = iota
	blackHole
	passthrough
)

// A labelKey is all that the labels of a series depend on. Equal keys mean equal
// labels; the reverse need not hold.
type labelKey struct {
	reporter  reporter
	protocol  protocol
	special   special
	messages  bool // of messages of calls: their labels end before the protocol
	code      int16
	grpc      int16
	flags     filter.Flags
	peer      *filter.Peer
	spec      *upstream.Spec
	leaf      *x509.Certificate // the upstream's
	workload  string            // of the endpoint, if nothing better is known
	principal string            // the client's
	local     string            // ours
	host      string            // in place of the service's name
	custom    string            // values of dimensions that configuration adds
}

type reporter uint8

const (
	source reporter = iota
	destination
	waypoint
)

func (r reporter) String() string { return [...]string{"source", "destination", "waypoint"}[r] }

func reporterOf(r Reporter, d filter.Direction) reporter {
	switch {
	case r == ReporterWaypoint:
		return waypoint
	case d == filter.Inbound:
		return destination
	}
	return source
}

// party is one end as labels name it.
type party struct {
	workload, namespace, principal, app, version string
	canonical, revision, cluster                 string
}

func partyOf(p *filter.Peer) party {
	if p == nil {
		return party{}
	}
	return party{workload: p.Workload, namespace: p.Namespace, app: p.App, version: p.Version,
		canonical: p.CanonicalName, revision: p.CanonicalRevision, cluster: p.Cluster}
}

// partyOfEndpoint reads the metadata istio.workload of an endpoint:
// "workload;namespace;canonical name;canonical revision;cluster".
func partyOfEndpoint(workload string) party {
	var p party
	for i, to := range []*string{&p.workload, &p.namespace, &p.canonical, &p.revision, &p.cluster} {
		field, rest, more := strings.Cut(workload, ";")
		*to = field
		if workload = rest; !more && i < 4 {
			break
		}
	}
	return p
}

// namespaceOf returns the namespace in a SPIFFE URI, or "".
func namespaceOf(principal string) string {
	_, rest, ok := strings.Cut(principal, "/ns/")
	if !ok {
		return ""
	}
	ns, _, _ := strings.Cut(rest, "/")
	return ns
}

// labels spells k out, in the order in which Istio's proxies emit them.
func (m *Metrics) labels(k *labelKey) []telemetry.Tag {
	own := partyOf(m.self)
	other := partyOf(k.peer)
	if k.peer == nil && k.workload != "" {
		other = partyOfEndpoint(k.workload)
	}
	var src, dst party
	var service upstream.ServiceFact
	if k.spec != nil {
		service = k.spec.Service
	}
	name := k.serviceName(service)
	security := unknown
	if k.reporter == source {
		src, dst = own, other
		src.principal, dst.principal = k.local, leafURI(k.leaf)
		dst.namespace = or(namespaceOf(dst.principal), dst.namespace)
		service.Host = or(or(service.Host, k.host), unknown)
		service.Namespace = or(or(service.Namespace, dst.namespace), unknown)
		name = or(name, unknown)
	} else {
		src, dst = other, own
		src.principal, dst.principal = k.principal, k.local
		src.namespace = or(namespaceOf(src.principal), src.namespace)
		service.Host = or(or(service.Host, k.host), or(own.canonical, unknown))
		service.Namespace = or(or(service.Namespace, own.namespace), unknown)
		name = or(name, or(own.canonical, unknown))
		security = "none"
		if k.principal != "" && k.local != "" {
			security = "mutual_tls"
		}
	}
	return k.spell(&src, &dst, service, name, security)
}

func (k *labelKey) serviceName(service upstream.ServiceFact) string {
	switch {
	case k.special == blackHole:
		return "BlackHoleCluster"
	case k.special == passthrough:
		return "PassthroughCluster"
	case k.spec != nil && isSpecial(k.spec.Name):
		return k.spec.Name
	case service.Name != "":
		return service.Name
	}
	host, _, _ := strings.Cut(k.host, ":")
	first, _, _ := strings.Cut(host, ".")
	return first
}

func isSpecial(cluster string) bool {
	switch cluster {
	case "BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster",
		"InboundPassthroughClusterIpv4", "InboundPassthroughClusterIpv6":
		return true
	}
	return false
}

func (k *labelKey) spell(src, dst *party, service upstream.ServiceFact, name, security string) []telemetry.Tag {
	known := func(key, value string) telemetry.Tag { return telemetry.Tag{Key: key, Value: or(value, unknown)} }
	tags := []telemetry.Tag{
		{Key: "reporter", Value: k.reporter.String()},
		known("source_workload", src.workload),
		known("source_canonical_service", src.canonical),
		{Key: "source_canonical_revision", Value: or(src.revision, latest)},
		known("source_workload_namespace", src.namespace),
		known("source_principal", src.principal),
		known("source_app", src.app),
		known("source_version", src.version),
		known("source_cluster", src.cluster),
		known("destination_workload", dst.workload),
		known("destination_workload_namespace", dst.namespace),
		known("destination_principal", dst.principal),
		known("destination_app", dst.app),
		known("destination_version", dst.version),
		{Key: "destination_service", Value: service.Host},
		known("destination_canonical_service", dst.canonical),
		{Key: "destination_canonical_revision", Value: or(dst.revision, latest)},
		{Key: "destination_service_name", Value: name},
		{Key: "destination_service_namespace", Value: service.Namespace},
		known("destination_cluster", dst.cluster),
		{Key: "request_protocol", Value: [...]string{"tcp", "http", "grpc"}[k.protocol]},
	}
	if k.protocol != protocolTCP {
		grpc := ""
		if k.grpc >= 0 {
			grpc = strconv.Itoa(int(k.grpc))
		}
		tags = append(tags,
			telemetry.Tag{Key: "response_code", Value: strconv.Itoa(int(k.code))},
			telemetry.Tag{Key: "grpc_response_status", Value: grpc})
	}
	return append(tags,
		telemetry.Tag{Key: "response_flags", Value: k.flags.String()},
		telemetry.Tag{Key: "connection_security_policy", Value: security})
}

// or returns a, or b if a is empty.
func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func leafURI(leaf *x509.Certificate) string {
	if leaf == nil || len(leaf.URIs) == 0 {
		return ""
	}
	return leaf.URIs[0].String()
}

// own returns a key whose strings are safe to keep.
func (k labelKey) own() labelKey {
	k.workload = strings.Clone(k.workload)
	k.principal = strings.Clone(k.principal)
	k.local = strings.Clone(k.local)
	k.host = strings.Clone(k.host)
	k.custom = strings.Clone(k.custom)
	return k
}
