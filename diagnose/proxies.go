// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/netio/netns"
)

// A Proxy is one that runs on this machine, as a file in the folder of proxies
// tells.
type Proxy struct {
	Workload  string `json:"workload"`
	Namespace string `json:"namespace"`
	Admin     string `json:"admin"`           // "host:port"
	NetNS     string `json:"netns,omitempty"` // name of the network namespace that Admin is in; "": ours
	PID       int    `json:"pid,omitempty"`
}

// Name is how people name a proxy.
func (p *Proxy) Name() string {
	if p.Namespace == "" {
		return p.Workload
	}
	return p.Workload + "." + p.Namespace
}

// proxies lists what the folder tells, by name.
func (m *Mesh) proxies() ([]Proxy, error) {
	if m.Admin.IsValid() {
		return []Proxy{{Workload: m.Admin.String(), Admin: m.Admin.String()}}, nil
	}
	if m.Proxies == "" {
		return nil, errors.New("no proxies are known: name the state folder of a running mesh with --dir, or one proxy's admin port with --admin")
	}
	files, err := filepath.Glob(filepath.Join(m.Proxies, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []Proxy
	for _, file := range files {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just left
		}
		if err != nil {
			return nil, fmt.Errorf("folder of proxies: %w", err)
		}
		var p Proxy
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Proxy) int { return cmp.Compare(a.Name(), b.Name()) })
	return out, nil
}

// find returns the proxy that people call name: NAME, NAME.NAMESPACE or
// NAMESPACE/NAME; the workload's name may leave its version out if that is clear.
func (m *Mesh) find(name string) (*Proxy, error) {
	all, err := m.proxies()
	if err != nil {
		return nil, err
	}
	if m.Admin.IsValid() {
		return &all[0], nil
	}
	if ns, short, ok := strings.Cut(name, "/"); ok {
		name = short + "." + ns
	}
	for _, fits := range []func(p *Proxy) bool{
		func(p *Proxy) bool { return p.Name() == name },
		func(p *Proxy) bool { return p.Workload == name },
		func(p *Proxy) bool { return strings.HasPrefix(p.Workload, name+"-") },
	} {
		var found []*Proxy
		for i := range all {
			if fits(&all[i]) {
				found = append(found, &all[i])
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return nil, fmt.Errorf("%q may be any of %s: say which", name, names(found))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no workload %q: no proxy runs here", name)
	}
	known := make([]*Proxy, len(all))
	for i := range all {
		known[i] = &all[i]
	}
	return nil, fmt.Errorf("no workload %q; there are %s", name, names(known))
}

func names(all []*Proxy) string {
	var out []string
	for _, p := range all {
		out = append(out, p.Name())
	}
	return strings.Join(out, ", ")
}

// workload finds the proxy of a workload by the name that endpoints carry.
func (m *Mesh) workload(name, namespace string) *Proxy {
	all, err := m.proxies()
	if err != nil || m.Admin.IsValid() {
		return nil
	}
	for i := range all {
		if all[i].Workload == name && all[i].Namespace == namespace {
			return &all[i]
		}
	}
	return nil
}

// client reaches the admin port, inside its network namespace if it has one.
func (p *Proxy) client() *http.Client {
	if p.NetNS == "" {
		return http.DefaultClient
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return netns.Named(p.NetNS).Dial(ctx, &netio.Dialer{}, to)
		},
	}}
}

// page asks for one of the admin pages.
func (p *Proxy) page(ctx context.Context, method, page string, body []byte) ([]byte, error) {
	b, err := fetch(ctx, p.client(), method, "http://"+p.Admin+page, bodyOf(body))
	if err != nil {
		hint := ""
		if errors.Is(err, fs.ErrPermission) {
			hint = "; its network namespace can be entered by root alone"
		}
		return nil, fmt.Errorf("proxy %s at %s: %w%s", p.Name(), p.Admin, err, hint)
	}
	return b, nil
}
