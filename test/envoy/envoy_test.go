// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/meltemi/meltemi/control"
	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/samples/bookshop"
)

// dialects are the two ways of asking.
var dialects = map[string]bool{"delta": false, "sotw": true}

func page(sotw bool) Node {
	return Node{
		Role: mesh.Sidecar, Namespace: "default", Name: "productpage-v1", Account: "bookinfo-productpage", Addr: netip.MustParseAddr("10.0.0.11"),
		Labels: map[string]string{"app": "productpage", "version": "v1"}, Meta: map[string]string{"WORKLOAD_ENTRY": "productpage-v1"}, SotW: sotw,
	}
}

func gateway(sotw bool) Node {
	return Node{
		Role: mesh.Router, Namespace: "default", Name: "gateway", Account: "gateway", Addr: netip.MustParseAddr("10.0.0.99"),
		Labels: map[string]string{"istio": "ingressgateway"}, SotW: sotw,
	}
}

// workloads are those of the sample.
func workloads() string {
	var b strings.Builder
	for i, w := range bookshop.Workloads() {
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: %s, namespace: default}
spec:
  address: 10.0.0.%d
  ports: {http: 9080}
  labels: {app: %s, version: %s, security.istio.io/tlsMode: istio}
  serviceAccount: %s
`, w.Name(), i+11, w.Service, w.Version, w.Account)
	}
	return b.String()
}

// past tells that something has been sent since.
func past(before map[string]string) func(*push.ClientStatus) bool {
	return func(s *push.ClientStatus) bool {
		for _, t := range s.Types {
			if t.Sent != before[t.TypeURL] {
				return true
			}
		}
		return false
	}
}

func sent(e *Envoy) map[string]string {
	out := map[string]string{}
	for _, t := range e.status().Types {
		out[t.TypeURL] = t.Sent
	}
	return out
}

func TestTheSample(t *testing.T) {
	for name, sotw := range dialects {
		t.Run(name, func(t *testing.T) {
			p := Start(t)
			conf := bookshop.Configuration()
			files, err := fs.Glob(conf, "*.yaml")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				b, err := fs.ReadFile(conf, f)
				if err != nil {
					t.Fatal(err)
				}
				p.Write(f, string(b))
			}
			p.Write("workloads.yaml", workloads())
			for _, e := range []*Envoy{p.Connect(page(sotw)), p.Connect(gateway(sotw))} {
				e.Settle(nil)
				e.Check("the sample")
			}
		})
	}
}

// Each of Bookinfo's files comes and goes under two Envoys that stay.
func TestBookinfosFiles(t *testing.T) {
	const folder = "../../control/istioapi/testdata/samples/bookinfo"
	services, err := os.ReadFile("../../control/envoy/testdata/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(folder + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for name, sotw := range dialects {
		t.Run(name, func(t *testing.T) {
			p := Start(t)
			p.Write("services.yaml", string(services))
			side, gw := p.Connect(page(sotw)), p.Connect(gateway(sotw))
			side.Settle(nil)
			gw.Settle(nil)
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				concerned := side
				if strings.Contains(f, "gateway") {
					concerned = gw
				}
				was := sent(concerned)
				p.Write("file.yaml", string(text))
				concerned.Settle(past(was))
				side.Settle(nil)
				gw.Settle(nil)
				side.Check(filepath.Base(f))
				gw.Check(filepath.Base(f))
				was = sent(concerned)
				p.Write("file.yaml", "")
				concerned.Settle(past(was))
			}
		})
	}
}

// The meshes of the back end's golden files hold every kind of listener, route, cluster and policy that it makes.
func TestGoldenMeshes(t *testing.T) {
	archives, err := filepath.Glob("../../control/envoy/testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no archives", err)
	}
	dir, err := os.MkdirTemp("", "golden")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	certificates(t, dir)
	sotw := false
	for _, path := range archives {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		if strings.HasPrefix(name, "bookinfo") {
			continue
		}
		sotw = !sotw // one half each
		t.Run(name, func(t *testing.T) { goldenMesh(t, path, dir, sotw) })
	}
}

func goldenMesh(t *testing.T, path, dir string, sotw bool) {
	p, nodes := golden(t, path, dir)
	for _, n := range nodes {
		if n.own {
			continue
		}
		n.SotW = sotw
		e := p.Connect(n)
		e.Settle(nil)
		e.Check(strings.Join([]string{string(n.Namespace), n.Name, n.Addr.String()}, " "))
	}
}

// golden is the mesh of a golden file, with the proxies that it speaks of.
func golden(t *testing.T, path, dir string) (*Plane, []Node) {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := Start(t)
	// Files and sockets of pods are here in a folder.
	here := strings.NewReplacer(" /c.pem", " "+dir+"/c.pem", " /k.pem", " "+dir+"/k.pem", " /c2.pem", " "+dir+"/c.pem", " /k2.pem", " "+dir+"/k.pem",
		" /ca.pem", " "+dir+"/c.pem", "unix:///run/", "unix://"+dir+"/")
	var nodes []Node
	for _, f := range a.Files {
		switch {
		case strings.HasSuffix(f.Name, ".yaml"):
			p.Write(f.Name, here.Replace(string(f.Data)))
		case f.Name == "ask":
			for line := range strings.Lines(string(f.Data)) {
				if words := strings.Fields(line); len(words) > 3 && words[0] == "proxy" {
					nodes = append(nodes, parseNode(words[1:]))
				}
			}
		}
	}
	return p, nodes
}

// parseNode reads a proxy as the golden files name it.
func parseNode(words []string) Node {
	ns, name, _ := strings.Cut(words[1], "/")
	n := Node{
		Role: mesh.NodeType(words[0]), Namespace: mesh.Namespace(ns), Name: name, Account: "default",
		Addr: netip.MustParseAddr(words[2]), Labels: map[string]string{}, Meta: map[string]string{},
	}
	for _, w := range words[3:] {
		k, v, _ := strings.Cut(w, "=")
		switch {
		case k == "ext" || k == "netext" || k == "agent":
			n.own = true
		case k == "locality":
			n.Locality = mesh.ParseLocality(v)
		case strings.ToUpper(k) == k:
			n.Meta[k] = v
			n.own = n.own || k == "MELTEMI_ON_DEMAND"
		default:
			n.Labels[k] = v
		}
	}
	return n
}

// certificates writes a certificate that signs itself, and its key.
func certificates(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"c.pem": {Type: "CERTIFICATE", Bytes: der}, "k.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// What only an Envoy can find wrong is seen, with its words, in the state of the object that caused it; and mended by mending
// the object.
func TestARefusalIsSeen(t *testing.T) {
	p := Start(t)
	services, err := os.ReadFile("../../control/envoy/testdata/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	route := func(value string) string {
		return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - headers: {response: {set: {x-share: %q}}}
    route: [{destination: {host: reviews}}]
`, value)
	}
	p.Write("services.yaml", string(services))
	p.Write("route.yaml", route("100%"))
	e := p.Connect(page(false))
	e.Settle(func(s *push.ClientStatus) bool {
		for _, ty := range s.Types {
			if ty.LastNack != nil {
				return true
			}
		}
		return false
	})
	find := func() control.Condition {
		for _, c := range p.Conditions() {
			if c.Object == "VirtualService/default/reviews" {
				return c
			}
		}
		t.Fatal("the object has no condition")
		return control.Condition{}
	}
	if c := find(); c.State != control.StateRejected || len(c.Rejecting) != 1 || c.Rejecting[0].Name != "9080" || c.Rejecting[0].Client != e.id() {
		t.Errorf("%+v", c)
	}
	was := sent(e)
	p.Write("route.yaml", route("100%%"))
	e.Settle(past(was))
	// The push that was counted may be of another type: the route's own
	// acknowledgement follows it.
	c := find()
	for deadline := time.Now().Add(20 * time.Second); c.State != control.StateEnforced && time.Now().Before(deadline); c = find() {
		time.Sleep(20 * time.Millisecond)
	}
	if c.State != control.StateEnforced {
		t.Errorf("%+v", c)
	}
}
