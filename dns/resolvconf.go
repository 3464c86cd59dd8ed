// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net/netip"
	"strings"
)

// ResolvConf is what of resolv.conf(5) matters here.
type ResolvConf struct {
	Servers []netip.AddrPort // at most three, as libc
	Search  []string
}

// ParseResolvConf reads the text of a resolv.conf. Lines it does not understand are ignored, as libc does.
func ParseResolvConf(text string) ResolvConf {
	var rc ResolvConf
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, ";")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil && len(rc.Servers) < 3 {
				rc.Servers = append(rc.Servers, netip.AddrPortFrom(a, 53))
			}
		case "search":
			rc.Search = words[1:]
		case "domain":
			rc.Search = words[1:2]
		}
	}
	for i, s := range rc.Search {
		rc.Search[i] = strings.TrimSuffix(s, ".")
	}
	return rc
}
