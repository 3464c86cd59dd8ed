// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// claim is an object that declares a service.
type claim struct {
	object source.Key
	*Declaration
}

// claims are the objects that declare a service, the one that decides first: a Kubernetes
// Service, then the others by name.
func (b *builder) claims(c *derive.Context, k ServiceKey) []claim {
	var all []claim
	for _, rows := range b.services {
		for _, o := range rows.byHost.Get(c, k.Host) {
			if o.Namespace != k.Namespace {
				continue
			}
			if d := rows.declare(c, o); d != nil {
				all = append(all, claim{o, d})
			}
		}
	}
	return all
}

// service joins what the objects of one namespace declare about one host. The first decides. Others
// of the same way of resolution add ports, endpoints and accepted names; next to a
// Kubernetes Service they add accepted names only.
func (b *builder) service(c *derive.Context, k ServiceKey) *Service {
	claims := b.claims(c, k)
	if len(claims) == 0 {
		return nil
	}
	first := claims[0]
	s := &Service{
		ServiceKey: k, Object: first.object, Name: first.Name, Kube: first.Kube,
		Labels: first.Labels, Annotations: first.Annotations, Ports: slices.Clone(first.Ports),
		Resolution: first.Resolution, External: first.External, Headless: first.Headless, Alias: first.Alias,
		Addrs: slices.Clone(first.Addrs), Prefixes: slices.Clone(first.Prefixes), ExportTo: first.ExportTo,
		SubjectAltNames: slices.Clone(first.SubjectAltNames), Distribution: first.Distribution,
	}
	wants := first.WantsVIP
	for _, other := range claims[1:] {
		s.Merged = append(s.Merged, other.object)
		s.SubjectAltNames = appendNew(s.SubjectAltNames, other.SubjectAltNames...)
		if !joins(first, other) {
			continue
		}
		for _, p := range other.Ports {
			if _, ok := s.Port(p.Number); !ok {
				s.Ports = append(s.Ports, p)
			}
		}
		s.Addrs = appendNew(s.Addrs, other.Addrs...)
		s.Prefixes = appendNew(s.Prefixes, other.Prefixes...)
		wants = wants || other.WantsVIP
	}
	if wants && len(s.Addrs)+len(s.Prefixes) == 0 {
		s.AutoVIP = b.vips.Get(c, vipSlot(k).group()).addr[k]
	}
	return s
}

// joins reports whether other adds endpoints to the service that first decides about.
func joins(first, other claim) bool {
	return !first.Kube && first.Resolution == other.Resolution && first.External == other.External
}

func appendNew[T comparable](to []T, more ...T) []T {
	for _, m := range more {
		if !slices.Contains(to, m) {
			to = append(to, m)
		}
	}
	return to
}

// brief is what visibility needs of a service. It changes less often than the rest.
type brief struct {
	exists bool
	kube   bool
	to     Visibility
}

func (b *builder) briefOf(c *derive.Context, k ServiceKey) brief {
	s := b.facts.Service.Get(c, k)
	if s == nil {
		return brief{}
	}
	return brief{true, s.Kube, s.ExportTo}
}

// hosts lists the namespaces in which a host is declared.
func (b *builder) hosts(c *derive.Context, h mesh.Hostname) []ServiceKey {
	var all []ServiceKey
	for _, rows := range b.services {
		for _, o := range rows.byHost.Get(c, h) {
			all = appendNew(all, ServiceKey{o.Namespace, h})
		}
	}
	slices.SortFunc(all, ServiceKey.Compare)
	return all
}

// kubeExportTo is the visibility of a Kubernetes service: that of its annotation, or else the mesh's default.
func kubeExportTo(annotations mesh.Labels, fallback []string, ns mesh.Namespace) Visibility {
	text := annotations[mesh.AnnotationExportTo]
	if text == "" {
		return ParseExportTo(fallback, ns)
	}
	var list []string
	for e := range strings.SplitSeq(text, ",") {
		list = append(list, strings.TrimSpace(e))
	}
	return ParseExportTo(list, ns)
}
