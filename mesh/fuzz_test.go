// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"strings"
	"testing"
)

// Names that proxies and peers send: in a node's ID, as a cluster's name, in TLS.
func FuzzParseNames(f *testing.F) {
	for _, s := range []string{
		"sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local", "router~~edge~", "outbound|80|v1|web.shop.svc.cluster.local",
		"outbound_.80_._.web.shop.svc.cluster.local", "inbound|8080||", "europe/west/a", "*.Example.com.:80",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseNodeID(s); err == nil {
			if again, err := ParseNodeID(n.String()); err != nil || again.Name != n.Name || again.Namespace != n.Namespace || again.Addr != n.Addr || again.Type != n.Type {
				t.Errorf("node %q: %+v reads back as %+v (%v)", s, n, again, err)
			}
		}
		if c, err := ParseClusterName(s); err == nil {
			if again, err := ParseClusterName(c.String()); err != nil || again != c {
				t.Errorf("cluster %q: %+v reads back as %+v (%v)", s, c, again, err)
			}
		}
		if c, err := ParseSNI(s); err == nil {
			if again, err := ParseSNI(c.SNI()); err != nil || again != c {
				t.Errorf("server name %q: %+v reads back as %+v (%v)", s, c, again, err)
			}
		}
		if l := ParseLocality(s); strings.Contains(s, "/") && !strings.HasSuffix(s, "/") && ParseLocality(l.String()) != l {
			t.Errorf("locality %q: %+v", s, l)
		}
		if h := NormalHost(s); !strings.HasSuffix(s, "..") && NormalHost(string(h)) != h {
			t.Errorf("host %q: %q is not its own normal form", s, h)
		}
	})
}
