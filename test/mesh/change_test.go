// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
)

// TestCertificatesRotateUnderLoad gives certificates a life of seconds. One service
// keeps its connections, another one is sent a single request over each.
func TestCertificatesRotateUnderLoad(t *testing.T) {
	m := newMesh(t)
	m.CertLifetime = 3 * time.Second
	m.begin()
	m.Write("mtls.yaml", fmt.Sprintf(authentication, "STRICT"))
	p := startPair(t, m)
	m.Write("rule.yaml", `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: once}
spec:
  host: once
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
`)
	m.Service("once", 80, "http")
	once := &Workload{Name: "once", Labels: map[string]string{"app": "once"}, Account: "once", App: newApp(t, "once").Addr, Inbound: freeporttest.Addr(t)}
	tap := NewTap(t, once.Inbound)
	once.Reach = tap.Addr
	m.Join(once)
	m.reaches(t, p.caller, "http://once/")

	loads := []*Load{
		StartLoad(t, 4, 2*time.Millisecond, p.caller.Proxy, webURL, OK),
		StartLoad(t, 4, 10*time.Millisecond, p.caller.Proxy, "http://once/", OK),
	}
	own := p.Certify("caller")
	serials := make(map[string]map[string]bool)
	for name, addr := range map[string]*Workload{"web": p.web, "once": once} {
		serials[name] = make(map[string]bool)
		Eventually(t, "five certificates of "+name, func() error {
			state, err := secure(addr.Inbound, own.ClientConfig(certs.TLS{ALPN: []string{"istio", "http/1.1"}}))
			if err != nil {
				t.Errorf("%s refuses a handshake: %v", name, err)
				return nil
			}
			leaf := state.PeerCertificates[0]
			if left := time.Until(leaf.NotAfter); left < 0 || left > m.CertLifetime {
				t.Errorf("%s presents a certificate that ends in %v", name, left)
			}
			serials[name][leaf.SerialNumber.String()] = true
			if n := len(serials[name]); n < 5 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
	}
	for _, l := range loads {
		total := l.Stop()
		t.Log(total)
		if total.Failed > 0 || total.Ended > 0 {
			t.Errorf("while certificates were rotated: %v", total)
		}
	}
	t.Logf("%d handshakes with once, of %d connections %d ended", len(tap.Conns()), len(p.tap.Conns()), p.tap.Ended())
	if p.tap.Ended() > 0 {
		t.Errorf("%d kept connections ended", p.tap.Ended())
	}
	if n := len(tap.Conns()); n < 100 {
		t.Errorf("only %d handshakes", n)
	}
}

// variant i of the configuration of "web": weights, subsets, timeouts, retries,
// pools and balancing differ from one to the next.
func variant(i int) string {
	v1 := []int{100, 50, 0, 80, 20}[i%5]
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - match: [{uri: {exact: /probe}}]
    directResponse: {status: %d}
  - timeout: %ds
    retries: {attempts: %d, perTryTimeout: 8s}
    headers: {request: {set: {variant: "%[1]d"}}}
    route:
    - {destination: {host: web, subset: v1}, weight: %[4]d}
    - {destination: {host: web, subset: v2}, weight: %d}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {simple: %s}
    connectionPool: {http: {http2MaxRequests: %d, idleTimeout: %ds}, tcp: {connectTimeout: %ds}}
    outlierDetection: {consecutive5xxErrors: %d}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
`, 200+i, 10+i%3, 1+i%4, v1, 100-v1, []string{"ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"}[i/2%3], 1000+i/3, 60+i/4, 5+i%2, 5+i%7)
}

// TestChangesUnderLoad changes the configuration a hundred times: nobody who is
// served notices, and what is not concerned keeps its connections.
func TestChangesUnderLoad(t *testing.T) {
	m := Start(t)
	m.Write("mtls.yaml", fmt.Sprintf(authentication, "STRICT"))
	apps := map[string]*app{"v1": newApp(t, "v1"), "v2": newApp(t, "v2")}
	m.Service("web", 80, "http")
	for v, a := range apps {
		m.Join(&Workload{Name: "web-" + v, Labels: map[string]string{"app": "web", "version": v, "extra": "no"}, Account: "web", App: a.Addr})
	}
	m.Service("calm", 80, "http")
	calm := &Workload{Name: "calm", Labels: map[string]string{"app": "calm"}, Account: "calm", App: newApp(t, "calm").Addr, Inbound: freeporttest.Addr(t)}
	tap := NewTap(t, calm.Inbound)
	calm.Reach = tap.Addr
	m.Join(calm)
	caller := &Workload{Name: "caller", Labels: map[string]string{"app": "caller"}, Account: "caller"}
	m.Join(caller)
	m.Write("web.yaml", variant(0))
	m.reaches(t, caller, "http://web/")
	m.reaches(t, caller, "http://calm/")

	by := func(a *Answer) (string, error) { _, err := OK(a); return a.Header.Get("App"), err }
	changed := StartLoad(t, 3, 2*time.Millisecond, caller.Proxy, "http://web/", by)
	quiet := StartLoad(t, 2, 2*time.Millisecond, caller.Proxy, "http://calm/", by)
	quiet.More(100)
	conns := len(tap.Conns())

	probe := NewCaller(t, caller.Proxy)
	guest := &Workload{Stop: func() {}}
	var took []time.Duration
	for i := range 100 {
		m.passing(t, i, guest)
		began := time.Now()
		m.Write("web.yaml", variant(i+1))
		Eventually(t, fmt.Sprintf("change %d", i+1), func() error {
			a, err := probe.Get("http://web/probe")
			if err == nil && a.Status != 200+i+1 {
				err = fmt.Errorf("%d", a.Status)
			}
			return err
		})
		took = append(took, time.Since(began))
		changed.More(3)
	}
	slices.Sort(took)
	t.Logf("from file saved to in force: median %v, 90th of 100 %v, longest %v", took[50], took[90], took[99])
	for what, l := range map[string]*Load{"changed": changed, "unconcerned": quiet} {
		total := l.Stop()
		t.Logf("%s: %v", what, total)
		if total.Failed > 0 || total.Ended > 0 {
			t.Errorf("%s: %v", what, total)
		}
	}
	if len(tap.Conns()) != conns || tap.Ended() > 0 {
		t.Errorf("the unconcerned service had %d connections, then %d, %d of them ended", conns, len(tap.Conns()), tap.Ended())
	}
	if probe.Opened != 1 {
		t.Errorf("the caller's connection was ended %d times", probe.Opened-1)
	}
	for _, p := range m.Control.Problems() {
		t.Errorf("the control plane complains: %+v", p)
	}
}

// passing lets a service, a further endpoint of web and a document that is broken
// come and go, each at its own pace.
func (m *Mesh) passing(t *testing.T, i int, extra *Workload) {
	t.Helper()
	if i%10 == 0 {
		m.Service("guest", 8000+i, "http")
	} else if i%10 == 5 {
		m.Remove("service-guest.yaml")
	}
	switch i % 20 {
	case 3:
		extra.Stop() // of the last time: nobody has been told of it for a while
		*extra = Workload{Name: "web-extra", Labels: map[string]string{"app": "web", "version": "v1", "extra": "yes"}, Account: "web", App: newApp(t, "v1").Addr}
		m.Join(extra)
	case 13:
		m.Remove("workload-web-extra.yaml")
	case 7:
		m.Write("broken.yaml", strings.Replace(variant(0), "name: web}", "name: broken}\n  bad indentation", 1))
		Eventually(t, "a broken file is reported", func() error {
			if len(m.Control.Problems()) == 0 {
				return errors.New("nothing is")
			}
			return nil
		})
	case 8:
		m.Remove("broken.yaml")
		Eventually(t, "a broken file is forgotten", func() error {
			if p := m.Control.Problems(); len(p) > 0 {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
	}
}
