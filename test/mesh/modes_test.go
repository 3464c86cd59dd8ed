// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/certs"
)

// TestModesOfMutualTLS goes through the modes under load. Between STRICT and
// PERMISSIVE nobody who has a certificate notices.
func TestModesOfMutualTLS(t *testing.T) {
	m := Start(t)
	m.Write("mtls.yaml", fmt.Sprintf(authentication, "PERMISSIVE"))
	p := startPair(t, m)
	own := p.Certify("caller")
	with := func() error {
		_, err := secure(p.web.Inbound, own.ClientConfig(certs.TLS{ALPN: []string{"istio", "http/1.1"}}))
		return err
	}
	without := func() error { _, err := secure(p.web.Inbound, anonymous("istio")); return err }
	inPlain := func() error { return plain(p.web.Inbound) }
	become := func(mode string) {
		t.Helper()
		m.Write("mtls.yaml", fmt.Sprintf(authentication, mode))
		for _, c := range []struct {
			what string
			try  func() error
			ok   []string
		}{
			{"plaintext", inPlain, []string{"PERMISSIVE", "DISABLE"}},
			{"a certificate", with, []string{"PERMISSIVE", "STRICT"}},
			{"no certificate", without, nil},
		} {
			Eventually(t, "under "+mode+" a client with "+c.what, func() error {
				err := c.try()
				if slices.Contains(c.ok, mode) {
					return err
				}
				if err == nil {
					return errors.New("is served")
				}
				return nil
			})
		}
		p.reaches(t, p.caller, webURL)
	}
	become("PERMISSIVE")
	load := StartLoad(t, 4, 2*time.Millisecond, p.caller.Proxy, webURL, OK)
	load.More(20)
	began := len(p.tap.Conns())
	for range 5 {
		become("STRICT")
		load.More(20)
		become("PERMISSIVE")
		load.More(20)
	}
	total := load.Stop()
	t.Logf("between STRICT and PERMISSIVE: %v; %d connections between sidecars more, %d ended", total, len(p.tap.Conns())-began, p.tap.Ended())
	if total.Failed > 0 || total.Ended > 0 || p.tap.Ended() > 0 {
		t.Errorf("%v; %d connections between sidecars ended", total, p.tap.Ended())
	}
	become("DISABLE")
	c := NewCaller(t, p.caller.Proxy)
	Eventually(t, "plaintext between the sidecars", func() error {
		if _, err := c.Get(webURL); err != nil {
			return err
		}
		conns := p.tap.Conns()
		if there, _ := conns[len(conns)-1].Bytes(); !strings.Contains(there, secret) {
			return errors.New("the request cannot be read on the wire")
		}
		return nil
	})
	become("STRICT")
}

// TestPoliciesComeAndGo changes who may call under load from somebody who always may.
func TestPoliciesComeAndGo(t *testing.T) {
	m := Start(t)
	m.Write("mtls.yaml", fmt.Sprintf(authentication, "STRICT"))
	p := startPair(t, m)
	other := &Workload{Name: "other", Labels: map[string]string{"app": "other"}, Account: "other"}
	m.Join(other)
	p.reaches(t, other, webURL)

	c := map[string]*Caller{"caller": NewCaller(t, p.caller.Proxy), "other": NewCaller(t, other.Proxy)}
	status := func(who, method, path string) int {
		t.Helper()
		req, err := http.NewRequest(method, "http://web"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c[who].Do(req)
		if err != nil {
			t.Fatalf("%s %s by %s: %v", method, path, who, err)
		}
		return a.Status
	}
	load := StartLoad(t, 4, 2*time.Millisecond, p.caller.Proxy, webURL, OK)
	load.More(20)
	conns := len(p.tap.Conns())
	for range 3 {
		for name, policy := range policies {
			m.Write("policy.yaml", fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s}
spec:
  selector: {matchLabels: {app: web}}
%s`, name, policy.spec))
			for _, w := range policy.want {
				Eventually(t, fmt.Sprintf("%s: %s %s by %s is answered %d", name, w.method, w.path, w.who, w.status), func() error {
					if got := status(w.who, w.method, w.path); got != w.status {
						return fmt.Errorf("%d", got)
					}
					return nil
				})
			}
			load.More(10)
			m.Remove("policy.yaml")
			for _, w := range policy.want {
				Eventually(t, fmt.Sprintf("without %s: %s %s by %s is served", name, w.method, w.path, w.who), func() error {
					if got := status(w.who, w.method, w.path); got != 200 {
						return fmt.Errorf("%d", got)
					}
					return nil
				})
			}
		}
	}
	total := load.Stop()
	t.Logf("%v; %d connections between sidecars at first, %d in the end", total, conns, len(p.tap.Conns()))
	if total.Failed > 0 || total.Ended > 0 || p.tap.Ended() > 0 {
		t.Errorf("%v; %d connections between sidecars ended", total, p.tap.Ended())
	}
	for who, c := range c {
		if c.Opened != 1 || c.Ended != 0 {
			t.Errorf("%s needed %d connections, %d were ended", who, c.Opened, c.Ended)
		}
	}
}

type verdict struct {
	who, method, path string
	status            int
}

var policies = map[string]struct {
	spec string
	want []verdict
}{
	"allow-principal": {`  action: ALLOW
  rules: [{from: [{source: {principals: ["cluster.local/ns/default/sa/caller"]}}]}]
`, []verdict{{"other", "GET", "/", 403}, {"caller", "GET", "/", 200}, {"caller", "POST", "/x", 200}}},
	"deny-principal": {`  action: DENY
  rules: [{from: [{source: {principals: ["cluster.local/ns/default/sa/other"]}}]}]
`, []verdict{{"other", "GET", "/", 403}, {"caller", "GET", "/", 200}}},
	"allow-method": {`  action: ALLOW
  rules: [{to: [{operation: {methods: ["GET"]}}]}]
`, []verdict{{"caller", "POST", "/", 403}, {"other", "DELETE", "/", 403}, {"other", "GET", "/", 200}}},
	"deny-method": {`  action: DENY
  rules: [{to: [{operation: {methods: ["POST", "PUT"]}}]}]
`, []verdict{{"caller", "POST", "/", 403}, {"caller", "PUT", "/", 403}, {"caller", "DELETE", "/", 200}}},
	"allow-path": {`  action: ALLOW
  rules: [{to: [{operation: {paths: ["/` + secret + `", "/public/*"]}}]}]
`, []verdict{{"caller", "GET", "/private", 403}, {"other", "GET", "/public/x", 200}, {"other", "GET", "/publicx", 403}}},
	"deny-path": {`  action: DENY
  rules: [{from: [{source: {notPrincipals: ["cluster.local/ns/default/sa/caller"]}}], to: [{operation: {paths: ["/admin*"]}}]}]
`, []verdict{{"other", "GET", "/admin", 403}, {"other", "GET", "/admin/users", 403}, {"caller", "GET", "/admin", 200}, {"other", "GET", "/", 200}}},
	"all-three": {`  action: ALLOW
  rules:
  - from: [{source: {principals: ["cluster.local/ns/default/sa/caller"]}}]
  - from: [{source: {namespaces: ["default"]}}]
    to: [{operation: {methods: ["GET"], paths: ["/health"]}}]
`, []verdict{{"other", "GET", "/", 403}, {"other", "POST", "/health", 403}, {"other", "GET", "/health", 200}, {"caller", "PUT", "/", 200}}},
}
