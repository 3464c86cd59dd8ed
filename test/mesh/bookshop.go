// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/samples/bookshop"
)

// A Bookshop is the sample application with its gateway.
type Bookshop struct {
	*Mesh
	Workloads map[string]*Workload // by name: reviews-v2
	Ingress   *Workload
	URL       string // of the gateway
	Client    *http.Client
}

// StartBookshop runs the sample. Of its configuration the files named are
// written; without names all of them.
func StartBookshop(m *Mesh, files ...string) *Bookshop {
	m.t.Helper()
	port := freeporttest.Addr(m.t)
	b := &Bookshop{Mesh: m, Workloads: make(map[string]*Workload), URL: "http://" + port.String(), Client: &http.Client{Timeout: 30 * time.Second}}
	conf := bookshop.Configuration()
	if len(files) == 0 {
		files, _ = fs.Glob(conf, "*.yaml")
	}
	for _, name := range files {
		text, err := fs.ReadFile(conf, name)
		if err != nil {
			m.t.Fatal(err)
		}
		b.WriteShop(name, string(text))
	}
	for _, w := range bookshop.Workloads() {
		b.start(w)
	}
	b.Ingress = m.Gateway(map[string]string{"istio": "ingressgateway"})
	return b
}

// WriteShop writes a file of the sample, or one of Bookinfo's: the gateway's
// port becomes ours, so that tests can run side by side.
func (b *Bookshop) WriteShop(name, text string) {
	b.t.Helper()
	port := b.URL[strings.LastIndexByte(b.URL, ':')+1:]
	text = strings.ReplaceAll(text, "number: 8080\n      name: http\n      protocol: HTTP\n", "number: "+port+"\n      name: http\n      protocol: HTTP\n    bind: 127.0.0.1\n")
	b.Write(name, strings.ReplaceAll(text, "number: 8080", "number: "+port))
}

func (b *Bookshop) start(s bookshop.Workload) {
	b.t.Helper()
	w := &Workload{Name: s.Name(), Labels: s.Labels(), Account: s.Account, Proxy: freeporttest.Addr(b.t)}
	cfg := bookshop.Defaults()
	cfg.Instance = w.Name
	cfg.Proxy = &url.URL{Scheme: "http", Host: w.Proxy.String()}
	h, err := bookshop.Handler(s.Service, s.Version, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	w.App = serveApp(b.t, h)
	b.Join(w)
	b.Workloads[w.Name] = w
}

// Gate is where the gateway listens.
func (b *Bookshop) Gate() netip.AddrPort {
	return netip.MustParseAddrPort(strings.TrimPrefix(b.URL, "http://"))
}

// Ready waits until the gateway answers with the whole page.
func (b *Bookshop) Ready() {
	b.t.Helper()
	defer func() {
		if b.t.Failed() {
			b.t.Logf("problems: %+v", b.Control.Problems())
		}
	}()
	Eventually(b.t, "the page through the gateway", func() error {
		status, body, _, err := Get(b.Client, b.URL+"/productpage")
		switch {
		case err != nil:
			return err
		case status != http.StatusOK || strings.Contains(body, "unavailable"):
			return fmt.Errorf("%d: %s", status, body)
		}
		return nil
	})
}
