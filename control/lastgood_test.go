// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
)

const (
	allowPage = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: details
  namespace: default
spec:
  selector: {matchLabels: {app: details}}
  rules: [{to: [{operation: {paths: [/page]}}]}]
`
	strictMTLS = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all, namespace: default}
spec: {mtls: {mode: STRICT}}
`
)

// inForce is the specification of a security policy that is in force, as text; "" for none.
func (p *plane) inForce(k source.Key) (text string) {
	p.graph.Read(func(c *derive.Context) {
		if o, ok := p.objects.AuthorizationPolicies.Get(c, k); ok {
			text = o.Spec.String()
		}
		if o, ok := p.objects.PeerAuthentications.Get(c, k); ok {
			text = o.Spec.String()
		}
	})
	return strings.ReplaceAll(text, "  ", " ")
}

func policyKey(kind source.Kind, name string) source.Key {
	return source.Key{Kind: kind, Namespace: "default", Name: name}
}

// The last good version stays in force, whatever became of the file and of the control plane since.
func TestTheLastGoodVersionOutlivesTheControlPlane(t *testing.T) {
	for name, c := range map[string]struct {
		kind         source.Kind
		object, good string
		break_       func(string) string
	}{
		"no YAML":            {source.KindAuthorizationPolicy, "details", allowPage, func(s string) string { return strings.Replace(s, "/page]", "/page", 1) }},
		"no name to be read": {source.KindAuthorizationPolicy, "details", allowPage, func(s string) string { return "]]] " + s[20:60] }},
		"a field":            {source.KindAuthorizationPolicy, "details", allowPage, func(s string) string { return strings.Replace(s, "rules", "rulse", 1) }},
		"what it says":       {source.KindAuthorizationPolicy, "details", allowPage, func(s string) string { return strings.Replace(s, "app: details", "app: '*'", 1) }},
		"a mode":             {source.KindPeerAuthentication, "all", strictMTLS, func(s string) string { return strings.Replace(s, "STRICT", "STRICTT", 1) }},
		"a brace":            {source.KindPeerAuthentication, "all", strictMTLS, func(s string) string { return strings.Replace(s, "STRICT}", "STRICT", 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			k := policyKey(c.kind, c.object)
			p := start(t)
			p.write(t, "policy.yaml", c.good)
			good := p.becomes(t, k.String(), StateUnused)
			want := p.inForce(k)
			p.write(t, "policy.yaml", c.break_(c.good))
			p.becomes(t, k.String(), StateOutdated)

			p = p.restart(t, func() {})
			if got := p.inForce(k); got != want {
				t.Errorf("after a restart %q is in force, want %q", got, want)
			}
			got := p.becomes(t, k.String(), StateOutdated)
			if !got.Since.Equal(good.Since) || got.Since.IsZero() {
				t.Errorf("in force since %v, want %v", got.Since, good.Since)
			}
			if said := p.said(); !strings.Contains(said, source.StaysInForce) {
				t.Errorf("what is said does not say that the version before stays:\n%s", said)
			}
			p = p.restart(t, func() { p.write(t, "policy.yaml", c.good) })
			if again := p.becomes(t, k.String(), StateUnused); !again.Since.Equal(good.Since) {
				t.Errorf("mended, it is in force since %v, want %v: it never was anything else", again.Since, good.Since)
			}
			p = p.restart(t, func() { p.write(t, "policy.yaml", "# nothing\n") })
			if got := p.inForce(k); got != "" {
				t.Errorf("the policy was taken out while the control plane was away, and %q is in force", got)
			}
			if left, _ := filepath.Glob(filepath.Join(keepFolder(p.cfg.State, p.folder), "*")); len(left) > 0 {
				t.Errorf("%v is left of it", left)
			}
		})
	}
}

// A document that is no YAML and of which no version was ever read fails closed if it looks like a security policy.
func TestWhatLooksLikeAPolicyFailsClosed(t *testing.T) {
	for name, c := range map[string]struct {
		kind               source.Kind
		object, text, want string
	}{
		"a policy": {source.KindAuthorizationPolicy, "details", strings.Replace(allowPage, "/page]", "/page", 1), "rules:{} action:DENY"},
		"a mode":   {source.KindPeerAuthentication, "all", strings.Replace(strictMTLS, "STRICT}", "STRICT", 1), "mtls:{mode:STRICT}"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			p.write(t, "policy.yaml", c.text)
			k := policyKey(c.kind, c.object)
			p.becomes(t, k.String(), StateRefused)
			eventually(t, "something stands in", func() bool { return p.inForce(k) != "" })
			got := strings.Join(strings.Fields(p.inForce(k)), " ")
			if a, b, ok := strings.Cut(c.want, " "); !strings.Contains(got, a) || ok && !strings.Contains(got, b) || strings.Contains(got, "selector") {
				t.Errorf("in force is %q, want %q", got, c.want)
			}
			if said := p.said(); !strings.Contains(said, "until it is mended") || strings.Contains(said, source.StaysInForce) {
				t.Errorf("said is:\n%s", said)
			}
			p.write(t, "policy.yaml", "# nothing\n")
			eventually(t, "nothing stands in any more", func() bool { return p.inForce(k) == "" })
		})
	}
}

// said is all that is wrong with the configuration.
func (p *plane) said() string {
	var b strings.Builder
	for _, x := range p.Problems() {
		b.WriteString(x.Object + ": " + x.Field + ": " + x.Message + "\n")
	}
	return b.String()
}

// What is said is about the newest version alone.
func TestWhatIsSaidIsAboutTheNewestVersion(t *testing.T) {
	senseless := strings.Replace(allowPage, "app: details", "app: '*'", 1) // it is refused for what it says
	unknown := strings.Replace(allowPage, "rules", "rulse", 1)
	noYAML := strings.Replace(allowPage, "/page]", "/page", 1)
	marks := map[string]string{senseless: "spec.selector", unknown: "spec.rulse", noYAML: "not readable as YAML"}
	for name, c := range map[string]struct {
		versions []string
		stays    bool
	}{
		"good, senseless, no YAML":       {[]string{allowPage, senseless, noYAML}, true},
		"good, senseless, unknown field": {[]string{allowPage, senseless, unknown}, true},
		"good, no YAML, senseless":       {[]string{allowPage, noYAML, senseless}, true},
		"good, unknown field, no YAML":   {[]string{allowPage, unknown, noYAML}, true},
		"senseless, no YAML":             {[]string{senseless, noYAML}, false},
		"senseless, unknown field":       {[]string{senseless, unknown}, false},
		"unknown field, no YAML":         {[]string{unknown, noYAML}, false},
		"no YAML, senseless":             {[]string{noYAML, senseless}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			for _, v := range c.versions {
				p.write(t, "policy.yaml", v)
				mark := marks[v]
				defer func() {
					if t.Failed() {
						t.Log(p.said())
					}
				}()
				eventually(t, "what is said fits", func() bool {
					if mark == "" {
						return p.inForce(policyKey(source.KindAuthorizationPolicy, "details")) != ""
					}
					said := p.said()
					for _, other := range marks {
						if strings.Contains(said, other) != (other == mark) {
							return false
						}
					}
					return strings.Contains(said, source.StaysInForce) == c.stays
				})
			}
		})
	}
}

// That a version could not be kept is said, for it will be missed.
func TestWhatCannotBeKeptIsSaid(t *testing.T) {
	state, folder := filepath.Join(t.TempDir(), "state"), t.TempDir()
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "last-good"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := startOn(t, state, folder)
	p.write(t, "policy.yaml", strictMTLS)
	eventually(t, "it is said", func() bool { return strings.Contains(p.said(), "the last good versions are not all kept here") })
}
