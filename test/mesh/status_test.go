// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control"
	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
)

// becomes waits until an object's condition has this state, with a reason that holds why.
func (m *Mesh) becomes(t *testing.T, object, state, why string) {
	t.Helper()
	Eventually(t, object+" is "+state, func() error {
		for _, c := range m.Control.Conditions() {
			if c.Object == object && c.State == state && strings.Contains(fmt.Sprint(c.Rejecting), why) {
				return nil
			}
		}
		return fmt.Errorf("%+v", m.Control.Conditions())
	})
}

// What a gateway cannot serve, as somebody else has the port, is not said to be in force; once the port is free it is served, and said to be.
func TestWhatAGatewayCannotServe(t *testing.T) {
	m := Start(t)
	app := newApp(t, "web")
	m.Service("web", 80, "http")
	m.Join(&Workload{Name: "web", Labels: map[string]string{"app": "web"}, Account: "web", App: app.Addr})
	gate := freeporttest.Addr(t)
	other, err := net.Listen("tcp", gate.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	m.Write("gateway.yaml", fmt.Sprintf(edge, gate.Port()))
	m.Gateway(map[string]string{"istio": "ingressgateway"})
	for _, kind := range []string{"Gateway", "VirtualService"} {
		m.becomes(t, kind+"/default/edge", control.StateRejected, "port "+gate.String()+" is taken")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"Gateway", "VirtualService"} {
		m.becomes(t, kind+"/default/edge", control.StateEnforced, "")
	}
	c := NewCaller(t, gate)
	if a, err := c.Get("/"); err != nil || a.Status != 200 {
		t.Errorf("%+v, %v", a, err)
	}
}
