// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net/netip"
	"strings"
)

// Hostname is a DNS name or an IP address in its normal form: lower case, no
// trailing dot. It may be a wildcard: "*" or "*.suffix".
type Hostname string

// NormalHost brings s into normal form.
func NormalHost(s string) Hostname {
	return Hostname(strings.ToLower(strings.TrimSuffix(s, ".")))
}

// ExpandHost resolves a host as written in a resource of namespace ns: a name
// with no dot is a Kubernetes service of that namespace. Wildcards, addresses
// and names with a dot are complete. An empty domain means DefaultDomain.
func ExpandHost(host string, ns Namespace, domain string) Hostname {
	h := NormalHost(host)
	if h == "" || h == "*" || strings.ContainsAny(string(h), ".:") {
		return h
	}
	return ServiceHost(string(h), ns, domain)
}

// ServiceHost is the full name of a Kubernetes service. An empty domain means DefaultDomain.
func ServiceHost(service string, ns Namespace, domain string) Hostname {
	if domain == "" {
		domain = DefaultDomain
	}
	return Hostname(service + "." + string(ns) + ".svc." + domain)
}

// SplitServiceHost is the reverse of ServiceHost; ok is false when h is not the
// name of a Kubernetes service in domain.
func SplitServiceHost(h Hostname, domain string) (service string, ns Namespace, ok bool) {
	if domain == "" {
		domain = DefaultDomain
	}
	rest, ok := strings.CutSuffix(string(h), ".svc."+domain)
	if !ok {
		return "", "", false
	}
	service, n, ok := strings.Cut(rest, ".")
	if !ok || service == "" || n == "" || strings.Contains(n, ".") {
		return "", "", false
	}
	return service, Namespace(n), true
}

// IsWildcard reports whether h stands for many names.
func (h Hostname) IsWildcard() bool { return len(h) > 0 && h[0] == '*' }

// IsAddr reports whether h is an IP address.
func (h Hostname) IsAddr() bool {
	_, err := netip.ParseAddr(string(h))
	return err == nil
}

// SubsetOf reports whether every name that h stands for is also one of o:
// equal names, and "*.x" or a name ending in ".x" under "*.x". A wildcard does
// not stand for its own bare suffix, and may stand for several labels.
func (h Hostname) SubsetOf(o Hostname) bool {
	if !o.IsWildcard() {
		return h == o
	}
	suffix := o[1:]
	if h.IsWildcard() {
		return len(h) >= len(o) && strings.HasSuffix(string(h[1:]), string(suffix))
	}
	// "*" alone has an empty suffix and takes everything but the empty name.
	return len(h) > len(suffix) && strings.HasSuffix(string(h), string(suffix))
}

// Overlaps reports whether some name is one of both h and o.
func (h Hostname) Overlaps(o Hostname) bool { return h.SubsetOf(o) || o.SubsetOf(h) }
