// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/control/source/file"
	"github.com/meltemi/meltemi/derive"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// A security policy of which no version could ever be enforced fails closed, and says so.
func TestRefusedPoliciesFailClosed(t *testing.T) {
	const (
		denied   = "rules:{} action:DENY"
		allowed  = "but for what other ALLOW policies allow"
		selector = `selector:{match_labels:{key:"app" value:"web"}}`
		strict   = "mtls:{mode:STRICT}"
	)
	for name, c := range map[string]struct{ kind, head, spec, want, says string }{
		"an ALLOW policy": {"AuthorizationPolicy", "", "selector: {matchLabels: {app: web}}, rules: [{to: [{}]}]", selector, allowed},
		"a DENY policy": {"AuthorizationPolicy", "", "selector: {matchLabels: {app: web}}, action: DENY, rules: [{to: [{}]}]",
			selector + " " + denied, "everything it selects is denied"},
		"an unknown field":        {"AuthorizationPolicy", "", "selector: {matchLabels: {app: web}}, rules: [{form: []}]", selector, allowed},
		"an unknown action":       {"AuthorizationPolicy", "", "selector: {matchLabels: {app: web}}, action: DENNY", selector + " " + denied, "is denied"},
		"a field astray":          {"AuthorizationPolicy", "", "selector: {matchLabels: {app: web}}, actoin: DENY", selector + " " + denied, "is denied"},
		"a wildcard selector":     {"AuthorizationPolicy", "", "selector: {matchLabels: {app: '*'}}", "", allowed},
		"an unreadable selector":  {"AuthorizationPolicy", "", "selector: {matchLabels: [app]}, action: DENY, rules: [{}]", denied, "is denied"},
		"no mapping":              {"AuthorizationPolicy", "", "[]", denied, "is denied"},
		"a target":                {"AuthorizationPolicy", "", "targetRefs: [{kind: Service, name: x}]", "", allowed},
		"an unknown version":      {"AuthorizationPolicy", "v9", "selector: {matchLabels: {app: web}}", selector, allowed},
		"what is only logged":     {"AuthorizationPolicy", "", "action: AUDIT, rules: [{to: [{}]}]", "none", ""},
		"mutual TLS":              {"PeerAuthentication", "", "selector: {matchLabels: {app: web}}, portLevelMtls: {0: {mode: DISABLE}}", selector + " " + strict, "mutual TLS only"},
		"an unknown mode":         {"PeerAuthentication", "", "selector: {matchLabels: {app: web}}, mtls: {mode: STRIKT}", selector + " " + strict, "mutual TLS only"},
		"a selector that is none": {"PeerAuthentication", "", "selector: {app: web}, mtls: {mode: DISABLE}", strict, "mutual TLS only"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.head == "" {
				c.head = "v1"
			}
			if !strings.HasPrefix(c.spec, "[") {
				c.spec = "{" + c.spec + "}"
			}
			dir := write(t, map[string]string{"p.yaml": "apiVersion: security.istio.io/" + c.head + "\nkind: " + c.kind + "\nmetadata: {name: p}\nspec: " + c.spec + "\n"})
			w := load(t, dir)
			got := "none"
			key := source.Key{Kind: source.Kind(c.kind), Namespace: "default", Name: "p"}
			w.graph.Read(func(ctx *derive.Context) {
				if o, ok := w.objects.AuthorizationPolicies.Get(ctx, key); ok {
					got = text(o.Spec)
				}
				if o, ok := w.objects.PeerAuthentications.Get(ctx, key); ok {
					got = text(o.Spec)
				}
				if s := w.statuses.Of.Get(ctx, key); s.Accepted || s.InForce {
					t.Errorf("the object itself is accepted or in force: %+v", s)
				}
			})
			if got != c.want {
				t.Errorf("in force is %s; want %s", got, c.want)
			}
			if said := w.problems(dir); !strings.Contains(said, c.says) || (c.says != "") != strings.Contains(said, "until it is mended") {
				t.Errorf("said is\n%s", said)
			}
		})
	}
}

// What stands in gives way to the first good version, which a refused one does not replace, and goes with the file.
func TestStandInGivesWay(t *testing.T) {
	const head = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\nspec: "
	dir := write(t, map[string]string{"p.yaml": ""})
	src, err := file.New(file.Defaults(dir))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(src)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.gather.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-w.gather.Synced()
	watcher := w.graph.NewWatcher()
	derive.Watch(watcher, w.statuses.Problems, struct{}{}, nil)
	look := func() (got, said string) {
		w.graph.Read(func(c *derive.Context) {
			for _, k := range w.objects.PeerAuthentications.Keys(c) {
				o, _ := w.objects.PeerAuthentications.Get(c, k)
				got += text(o.Spec)
			}
		})
		return got, w.problems(dir)
	}
	deadline := time.After(20 * time.Second)
	for i, step := range []struct{ spec, want, says string }{
		{"{mtls: {mode: STRIKT}}", "mtls:{mode:STRICT}", "until it is mended"},
		{"{selector: {matchLabels: {a: b}}, mtls: {mode: NO}}", `selector:{match_labels:{key:"a" value:"b"}} mtls:{mode:STRICT}`, "until it is mended"},
		{"{mtls: {mode: PERMISSIVE}}", "mtls:{mode:PERMISSIVE}", ""},
		{"{mtls: {mode: STRIKT}}", "mtls:{mode:PERMISSIVE}", "the version before this one stays in force"},
		{"", "", ""},
	} {
		content := head + step.spec
		if step.spec == "" {
			content = ""
		}
		if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		for {
			watcher.Drain(func(*derive.Context, *derive.Hold) {})
			got, said := look()
			if got == step.want && strings.Contains(said, step.says) && (said == "") == (step.says == "") {
				break
			}
			select {
			case <-watcher.Ready():
			case <-deadline:
				t.Fatalf("step %d: in force is %s; want %s; said is\n%s", i, got, step.want, said)
			}
		}
	}
}

// text is m on one line; what prototext writes varies in its blanks.
func text(m proto.Message) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(prototext.MarshalOptions{}.Format(m), ":  ", ":")), " ")
}
