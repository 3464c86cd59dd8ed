// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/samples/bookshop"
)

func TestRegistration(t *testing.T) {
	m := newMember("shop", "cart", "v2", "cart-account")
	m.Addr, m.Inbound = netip.MustParseAddr("10.201.0.10"), 9080
	got, err := m.registration()
	want := `# shop.cart-v2 joined the mesh. This file is removed when it leaves.
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: cart-v2
  namespace: shop
  labels:
    app: cart
    meltemi.io/member: cart-v2
    version: v2
spec:
  address: 10.201.0.10
  labels:
    app: cart
    meltemi.io/member: cart-v2
    version: v2
  ports:
    http: 9080
  serviceAccount: cart-account
`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	m.HTTPProxy, m.Addr, m.Inbound, m.App = 20003, netip.MustParseAddr("127.0.0.1"), 20001, loopback(20002)
	got, err = m.registration()
	want = `---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: cart-v2
  namespace: shop
spec:
  egress:
    - hosts:
        - '*/*'
  ingress:
    - bind: 127.0.0.1
      captureMode: NONE
      defaultEndpoint: 127.0.0.1:20002
      port:
        name: http
        number: 20001
        protocol: HTTP
  workloadSelector:
    labels:
      meltemi.io/member: cart-v2
`
	if err != nil || !strings.HasSuffix(string(got), want) {
		t.Errorf("%v\n%s", err, got)
	}
	m.Port = 80
	got, err = m.service()
	if err != nil || !strings.Contains(string(got), "targetPort: http") || !strings.Contains(string(got), "app: cart") {
		t.Errorf("%v\n%s", err, got)
	}
}

func TestArguments(t *testing.T) {
	m := newMember("default", "reviews", "v3", "bookinfo-reviews")
	m.Addr, m.Admin, m.HTTPProxy = loopback(0).Addr(), 20004, 20003
	got := strings.Join(proxyArgs(&m, "127.0.0.1:15012", "/r/root", "/r/token", ""), " ")
	want := "proxy --role sidecar --name reviews-v3 --namespace default --service-account bookinfo-reviews --labels app=reviews,meltemi.io/member=reviews-v3,version=v3 --ip 127.0.0.1 --control 127.0.0.1:15012 --root /r/root --token-file /r/token --admin 127.0.0.1:20004 --drain 1s --workload-entry reviews-v3 --interception NONE --metrics off --health off --http-proxy-port 20003"
	if got != want {
		t.Errorf("%s", got)
	}
	m.HTTPProxy = 0
	if got := strings.Join(proxyArgs(&m, "c", "r", "t", "10.0.0.1:53"), " "); strings.Contains(got, "--interception") || strings.Contains(got, "--http-proxy-port") || !strings.Contains(got, "--on-demand") || !strings.HasSuffix(got, "--dns 127.0.0.1:15053 --resolver 10.0.0.1:53") {
		t.Errorf("with capture: %s", got)
	}
	if proxyEnv(&m) != nil {
		t.Error("with capture an application needs no proxy")
	}
	g := gatewayMember()
	if got := strings.Join(proxyArgs(&g, "c", "r", "t", ""), " "); !strings.Contains(got, "--role router") || strings.Contains(got, "--workload-entry") || !strings.Contains(got, "istio=ingressgateway") {
		t.Errorf("gateway: %s", got)
	}
	got = strings.Join(controlArgs("/s", []string{"/c", "/r"}, []string{"127.0.0.1:1", "10.0.0.1:1"}, "127.0.0.1:2", []string{"127.0.0.1"}), " ")
	if got != "control --state /s --monitoring 127.0.0.1:2 --config /c --config /r --xds 127.0.0.1:1 --xds 10.0.0.1:1 --serving-name 127.0.0.1" {
		t.Errorf("control: %s", got)
	}
}

func TestSampleIsNeverOverwritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shop")
	if kept, err := writeSample(bookshop.Configuration(), dir); err != nil || len(kept) != 0 {
		t.Fatalf("%v, %v", kept, err)
	}
	file := filepath.Join(dir, "reviews.yaml")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	kept, err := writeSample(bookshop.Configuration(), dir)
	if err != nil || len(kept) != 1 || kept[0] != "reviews.yaml" || readFile(file) != "mine" {
		t.Errorf("%v, %v, %s", kept, err, readFile(file))
	}
}

func TestHeads(t *testing.T) {
	hs := heads([]byte("kind: Gateway\nmetadata: {name: a}\nspec: {servers: [{port: {number: 80}}, {port: {number: 443}}]}\n---\n: broken\n---\nkind: Service\nmetadata: {name: b, namespace: c}\n"))
	if len(hs) != 2 || hs[0].Metadata.Namespace != "default" || len(hs[0].Spec.Servers) != 2 || hs[1].Metadata.Name != "b" {
		t.Errorf("%+v", hs)
	}
	dir := t.TempDir()
	if _, err := writeSample(bookshop.Configuration(), dir); err != nil {
		t.Fatal(err)
	}
	if ps := gatewayPorts([]string{dir}); len(ps) != 1 || ps[0] != 8080 {
		t.Errorf("%v", ps)
	}
}

func FuzzHeads(f *testing.F) {
	f.Add([]byte("kind: Gateway\n---\nkind: Service\n"))
	f.Fuzz(func(_ *testing.T, text []byte) { heads(text) })
}
