// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"strings"

	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/mesh"
)

// Names are the names of a host without a port: itself, short forms for a Kubernetes service, its addresses.
func Names(h mesh.Hostname, client mesh.Namespace, s *registry.Service, domain string) []string {
	names := []string{string(h)}
	if h.IsAddr() && strings.Contains(string(h), ":") {
		names[0] = "[" + string(h) + "]"
	}
	if !h.IsWildcard() && !h.IsAddr() {
		names = append(names, string(h)+".")
	}
	if s == nil {
		return names
	}
	if svc, ns, ok := mesh.SplitServiceHost(h, domain); ok && s.Kube {
		short := []string{svc + "." + string(ns), svc + "." + string(ns) + ".svc"}
		if ns == client {
			short = append([]string{svc}, short...)
		}
		names = append(names, short...)
		if s.Headless {
			for _, n := range append([]string{string(h)}, short...) {
				names = append(names, "*."+n)
			}
		}
	}
	for _, a := range s.VIPs() {
		text := a.String()
		if a.Is6() {
			text = "[" + text + "]"
		}
		names = append(names, text)
	}
	return names
}
