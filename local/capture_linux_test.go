// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/netip"
	"testing"
)

func TestPlainHosts(t *testing.T) {
	for in, want := range map[string]string{
		"hosts: files dns\n": "hosts: files dns\n",
		"passwd: files\nhosts:  files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns\nnetworks: files\n": "passwd: files\nhosts: files dns\nnetworks: files\n",
		"": "",
	} {
		got, changed := plainHosts(in)
		if got != want || changed != (in != want) {
			t.Errorf("%q became %q, %v", in, got, changed)
		}
	}
}

func TestOverlaps(t *testing.T) {
	p := netip.MustParsePrefix("10.201.0.0/24")
	for r, want := range map[string]bool{"10.0.0.0/8": true, "10.201.0.128/25": true, "10.201.1.0/24": false, "fd00::/8": false} {
		if got := overlaps(p, []netip.Prefix{netip.MustParsePrefix(r)}); got != want {
			t.Errorf("%s: %v", r, got)
		}
	}
}
