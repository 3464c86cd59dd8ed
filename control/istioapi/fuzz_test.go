// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/registry"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"golang.org/x/tools/txtar"
)

// FuzzMesh compiles whatever passes its check, and asks about all of it: nothing may panic.
func FuzzMesh(f *testing.F) {
	samples, _ := filepath.Glob("testdata/samples/*/*.yaml")
	for _, s := range samples {
		text, err := os.ReadFile(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, path := range archives {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if filepath.Ext(file.Name) == ".yaml" {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		w := load(t, write(t, map[string]string{"mesh.yaml": string(text)}))
		w.graph.Read(w.askAll)
	})
}

// askAll asks every query about everything there is.
func (w *world) askAll(c *derive.Context) {
	w.statuses.Problems.Get(c, struct{}{})
	ns := mesh.Namespace("default")
	scope := intent.Scope{Namespace: ns}
	subject := intent.NewSubject(ns, mesh.Labels{"app": "reviews", "istio": "ingressgateway"})
	w.facts.Names.Get(c, ns)
	for _, k := range w.facts.WorkloadKeys.Get(c, struct{}{}) {
		w.facts.Served.Get(c, k)
	}
	for _, k := range w.wishes.Visible.Get(c, scope) {
		w.wishes.Rules.Get(c, intent.RuleFor{Client: ns, Service: k})
		for _, p := range w.facts.Service.Get(c, k).Ports {
			w.facts.Endpoints.Get(c, registry.PortKey{Service: k, Port: p.Number})
		}
	}
	for _, h := range w.wishes.RouteHosts.Get(c, scope) {
		w.wishes.Routes.Get(c, intent.HostIn{Scope: scope, Host: h})
	}
	for _, l := range w.wishes.Listeners.Get(c, subject) {
		w.wishes.VirtualHosts.Get(c, intent.Table{Subject: subject, Port: l.Port, Bind: l.Bind, Server: -1})
		for i, s := range l.Servers {
			w.wishes.VirtualHosts.Get(c, intent.Table{Subject: subject, Port: l.Port, Bind: l.Bind, Server: i})
			w.wishes.L4Routes.Get(c, intent.ServerKey{Namespace: ns, Gateway: s.Origin.Object, Server: s.Index})
		}
	}
	w.wishes.Sidecar.Get(c, subject)
	w.wishes.PeerAuth.Get(c, subject)
	w.wishes.Authorization.Get(c, subject)
	w.wishes.AccessLog.Get(c, subject)
}
