// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"
)

const answerBy = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: probe}
spec:
  hosts: [web]
  http:
  - match: [{uri: {exact: /probe}}]
    directResponse: {status: %d}
  - route: [{destination: {host: web}}]
`

// follows waits until a change of configuration is in force with from.
func (m *Mesh) follows(t *testing.T, from *Workload, status int) {
	t.Helper()
	m.Write("probe.yaml", fmt.Sprintf(answerBy, status))
	c := NewCaller(t, from.Proxy)
	Eventually(t, "a change is in force", func() error {
		a, err := c.Get("http://web/probe")
		if err == nil && a.Status != status {
			err = fmt.Errorf("%d, want %d", a.Status, status)
		}
		return err
	})
}

// undisturbed fails unless the load had no failure and nobody lost a connection.
func (p *pair) undisturbed(t *testing.T, load *Load, callers, accepted int) {
	t.Helper()
	total := load.Stop()
	t.Log(total)
	if total.Failed > 0 || total.Ended > 0 || total.Opened != callers {
		t.Errorf("callers were disturbed: %v", total)
	}
	if n := p.tap.Ended(); n > 0 {
		t.Errorf("%d connections between sidecars ended", n)
	}
	if n := int(p.app.accepted.Load()); n != accepted {
		t.Errorf("the service has accepted %d connections, %d before", n, accepted)
	}
}

// steady starts a load, and waits until no more connections are opened for it.
func (p *pair) steady(t *testing.T, callers int) (load *Load, accepted int) {
	t.Helper()
	load = StartLoad(t, callers, time.Millisecond, p.caller.Proxy, webURL, OK)
	load.More(500)
	return load, int(p.app.accepted.Load())
}

func TestControlPlaneStops(t *testing.T) {
	m := Start(t)
	m.Write("mtls.yaml", fmt.Sprintf(authentication, "STRICT"))
	p := startPair(t, m)
	m.follows(t, p.caller, 299)
	load, accepted := p.steady(t, 4)
	for i := range 3 {
		m.StopControl()
		load.More(500)
		m.StartControl()
		m.follows(t, p.caller, 298-i)
		load.More(200)
	}
	p.undisturbed(t, load, 4, accepted)
}

// TestControlPlaneIsKilled runs the control plane as a process of its own, for
// kill -9 to end it. What it kept on disk must do for the next one.
func TestControlPlaneIsKilled(t *testing.T) {
	m := Start(t)
	m.Write("mtls.yaml", fmt.Sprintf(authentication, "STRICT"))
	p := startPair(t, m)
	m.StopControl()
	kill := m.startProcess(t)
	m.follows(t, p.caller, 299)
	load, accepted := p.steady(t, 4)
	for i := range 2 {
		kill()
		load.More(500)
		kill = m.startProcess(t)
		m.follows(t, p.caller, 298-i)
		load.More(200)
	}
	kill()
	p.undisturbed(t, load, 4, accepted)
	// A workload that was never seen before joins the control plane that is back.
	m.StartControl()
	late := &Workload{Name: "late", Labels: map[string]string{"app": "late"}, Account: "late"}
	m.Join(late)
	m.reaches(t, late, webURL)
}

const asControl = "MELTEMI_TEST_CONTROL_PLANE" // state folder; then folder and address

// startProcess runs this test's program again, as control plane.
func (m *Mesh) startProcess(t *testing.T) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestAsControlPlane$")
	cmd.Env = append(os.Environ(), asControl+"="+m.state, asControl+"_FOLDER="+m.Folder, asControl+"_ADDR="+m.Addr.String())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	over := false
	kill = func() {
		if !over {
			over = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	return kill
}

// TestAsControlPlane is the process that TestControlPlaneIsKilled kills.
func TestAsControlPlane(t *testing.T) {
	state := os.Getenv(asControl)
	if state == "" {
		t.Skip("no test: a process that another test starts")
	}
	m := &Mesh{t: t, Folder: os.Getenv(asControl + "_FOLDER"), state: state, Addr: netip.MustParseAddrPort(os.Getenv(asControl + "_ADDR"))}
	m.StartControl()
	// Whoever started us may be gone without having killed us.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	<-ctx.Done()
	m.StopControl()
}
