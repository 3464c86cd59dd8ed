// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A real Envoy stands in for our proxy as the gateway and as the sidecar of two
// services, among ours: it takes what our control plane sends, does what Bookinfo's
// files describe, and both kinds of proxy prove their identities to each other.
func TestRealEnvoysInTheMesh(t *testing.T) {
	envoyBinary(t)
	m := Start(t)
	envoys := []string{"gateway", "productpage-v1", "ratings-v1"}
	m.Envoy = func(name string) bool { return slices.Contains(envoys, name) }
	s := &sample{StartBookshop(m, "services.yaml", "security.yaml")}
	s.WriteShop("gateway.yaml", sampleFile(t, "bookinfo-gateway"))
	s.Ready()
	// The sample's policy lets reviews alone read ratings, whose proxy is an Envoy.
	if status, _, _, err := Get(s.Client, s.URL+"/api/v1/products/0/ratings"); err != nil || status != http.StatusForbidden {
		t.Errorf("ratings answer productpage: %d %v, want 403", status, err)
	}
	s.WriteShop("destination-rules.yaml", sampleFile(t, "destination-rule-all"))
	t.Run("all v1", s.allV1)
	t.Run("splits", s.splits)
	t.Run("v3", s.onlyV3)
	t.Run("by user", s.byUser)
	t.Run("delay", s.delay)
	t.Run("abort", s.abort)
	t.Run("mutual TLS", s.mutualTLS)

	for _, name := range envoys {
		w := s.Workloads[name]
		if name == "gateway" {
			w = s.Ingress
		}
		for _, counter := range []string{"update_rejected", "ssl.fail_verify"} {
			stat, err := EnvoyStat(w, counter)
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimSpace(stat) != "" {
				t.Errorf("%s: %s", name, stat)
			}
		}
		served, err := EnvoyStat(w, "ssl.handshake")
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(served) == "" {
			t.Errorf("%s made no TLS handshake", name)
		}
	}
	for _, c := range m.Control.Status() {
		for _, ty := range c.Types {
			if ty.LastNack != nil {
				t.Errorf("%s refused %s: %s", c.Node, ty.TypeURL, ty.LastNack.Detail)
			}
		}
	}
}
