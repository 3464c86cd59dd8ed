// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/netio/freeport"
	"github.com/meltemi/meltemi/netio/netns"
	"github.com/meltemi/meltemi/redirect"
)

const (
	bridgeName   = "mesh"
	firstMember  = 10 // last byte of the first member's address
	lastMember   = 250
	captureAdmin = 15000
	dnsPort      = 53
)

// captured is a place where each member has a network namespace of its own. All are joined by a bridge
// in one more namespace, so that the machine's firewall and its bridge settings do not come
// between members; the machine itself has one link into it.
type captured struct {
	folder  folder
	ports   *freeport.Pool
	runtime string
	subnet  netip.Prefix
	hub     netns.Namespace
	link    string // the machine's, into the mesh; unknown to Run
}

var _ place = (*captured)(nil)

// canCapture reports whether members can have namespaces of their own, or says what prevents it.
func canCapture() error {
	return netns.Permitted()
}

// host is the machine's own address in the mesh.
func (c *captured) host() netip.Addr { return c.subnet.Addr().Next() }

// newCaptured makes the hub and the machine's link to it.
func newCaptured(ctx context.Context, j *made.Journal, f folder, p *freeport.Pool, runtime string) (*captured, error) {
	// From choosing a range to having a route into it no other mesh chooses.
	choosing, err := lockFolder("/run")
	if err != nil {
		return nil, err
	}
	defer choosing.Close()
	subnet, err := freeSubnet()
	if err != nil {
		return nil, err
	}
	c := &captured{folder: f, ports: p, runtime: runtime, subnet: subnet, link: f.link()}
	if err := c.sweep(ctx); err != nil {
		return nil, err
	}
	if c.hub, err = createSpace(j, f.space("hub")); err != nil {
		return nil, err
	}
	if err := c.hub.AddBridge(bridgeName); err != nil {
		return nil, err
	}
	if err := j.Record(made.Thing{Kind: made.Link, Name: c.link}); err != nil {
		return nil, err
	}
	own := netns.End{Name: c.link, Addrs: []netip.Prefix{netip.PrefixFrom(c.host(), subnet.Bits())}}
	return c, netns.Connect(netns.End{Namespace: c.hub, Name: "host", Bridge: bridgeName}, own)
}

// share lets members reach what the machine reaches. Only packets of the interfaces concerned are forwarded, and
// nobody is let in.
func (c *captured) share(j *made.Journal) error {
	rules := redirect.Share("meltemi_"+c.folder.id(), c.link, c.subnet)
	if err := j.Record(made.Thing{Kind: made.Table, Name: rules.Table}); err != nil {
		return err
	}
	if err := rules.Apply(netns.Namespace{}); err != nil {
		return err
	}
	links, err := netns.Namespace{}.DefaultLinks()
	if err != nil {
		return err
	}
	for _, link := range append(links, c.link) {
		setting := "/proc/sys/net/ipv4/conf/" + link + "/forwarding"
		before, err := os.ReadFile(setting)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(before)) == "1" {
			continue
		}
		if err := j.Record(made.Thing{Kind: made.Setting, Name: setting, Value: string(before)}); err != nil {
			return err
		}
		if err := os.WriteFile(setting, []byte("1\n"), 0); err != nil {
			return err
		}
	}
	return nil
}

// rejoin is the captured place of a running mesh.
func rejoin(f folder, m Mesh) (*captured, error) {
	subnet, err := netip.ParsePrefix(m.Subnet)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.mesh(), err)
	}
	return &captured{folder: f, runtime: m.Runtime, subnet: subnet, hub: netns.Named(m.Switch)}, nil
}

// sweep deletes namespaces of this folder that no journal lists any more; those of living Runs are listed.
func (c *captured) sweep(ctx context.Context) error {
	names, err := netns.List(c.folder.space(""))
	if err != nil {
		return err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !c.folder.listed(name) {
			err = errors.Join(err, netns.Delete(name))
		}
	}
	return err
}

func createSpace(j *made.Journal, name string) (netns.Namespace, error) {
	if err := j.Record(made.Thing{Kind: made.Namespace, Name: name}); err != nil {
		return netns.Namespace{}, err
	}
	return netns.Create(name)
}

// freeSubnet picks a private range that the machine has no route into.
func freeSubnet() (netip.Prefix, error) {
	routes, err := (netns.Namespace{}).Routes()
	if err != nil {
		return netip.Prefix{}, err
	}
	for third := range 256 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 201, byte(third), 0}), 24)
		if !overlaps(p, routes) {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("no private address range is free in 10.201.0.0/16: use explicit proxies (--no-capture)")
}

func overlaps(p netip.Prefix, routes []netip.Prefix) bool {
	for _, r := range routes {
		if r.Overlaps(p) {
			return true
		}
	}
	return false
}

// settle gives m a namespace, an address in the mesh, and capture. The gateway stays on the machine, where
// people call it.
func (c *captured) settle(ctx context.Context, j *made.Journal, m *Member) error {
	if m.Gateway {
		m.Addr = c.host()
		var err error
		m.Admin, err = c.ports.Give()
		return err
	}
	addr, err := c.freeAddr(j)
	if err != nil {
		return err
	}
	m.Addr = addr
	m.App = netip.AddrPortFrom(netip.IPv6Unspecified(), m.App.Port())
	m.Inbound = m.App.Port()
	m.Admin = captureAdmin
	if m.Space, err = createSpace(j, c.folder.space(m.ID())); err != nil {
		return err
	}
	last := addr.As4()[3]
	// The address is ours alone, so a link that bears its number is one that the kernel has yet to take down.
	link := fmt.Sprint("member", last)
	if err := c.hub.DeleteLink(link); err != nil {
		return err
	}
	err = netns.Connect(
		netns.End{Namespace: c.hub, Name: link, Bridge: bridgeName},
		netns.End{Namespace: m.Space, Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(addr, c.subnet.Bits())}},
	)
	if err != nil {
		return err
	}
	if err := m.Space.AddDefaultRoute(c.host()); err != nil {
		return err
	}
	rules, err := redirect.Capture(redirect.Defaults())
	if err != nil {
		return err
	}
	return rules.Apply(m.Space)
}

func (c *captured) freeAddr(j *made.Journal) (netip.Addr, error) {
	b := c.subnet.Addr().As4()
	for last := firstMember; last <= lastMember; last++ {
		b[3] = byte(last)
		addr := netip.AddrFrom4(b)
		ok, err := c.folder.take(j, addr.String())
		if err != nil || ok {
			return addr, err
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are taken", c.subnet)
}

func (c *captured) resolver() string { return netip.AddrPortFrom(c.host(), dnsPort).String() }

func (c *captured) proxy(m *Member, cmd *command) {
	cmd.space, cmd.user = m.Space, &proxyUser
	if m.Gateway {
		cmd.lowPorts = true // a Gateway's are 80 and 443, as a rule
		return
	}
	cmd.overlay = c.overlay()
}

// allowLowPorts leaves a process of another user one of root's rights.
func allowLowPorts(a *syscall.SysProcAttr) { a.AmbientCaps = []uintptr{unix.CAP_NET_BIND_SERVICE} }

func (c *captured) app(m *Member, cmd *command) {
	cmd.space, cmd.overlay = m.Space, c.overlay()
}

func (c *captured) reach(m *Member) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		dst, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		// The mark keeps the call from being captured by the member's own rules.
		d := netio.Dialer{Options: netio.SocketOptions{Mark: redirect.ProxyMark}}
		return m.Space.Dial(ctx, &d, dst)
	}
}

// overlay is what a member sees in place of the machine's own resolver settings: a resolver on the machine, whose
// questions the member's proxy answers first, and nothing that asks past DNS.
func (c *captured) overlay() map[string]string {
	o := map[string]string{"/etc/resolv.conf": filepath.Join(c.runtime, "resolv.conf")}
	if _, err := os.Stat(filepath.Join(c.runtime, "nsswitch.conf")); err == nil {
		o["/etc/nsswitch.conf"] = filepath.Join(c.runtime, "nsswitch.conf")
	}
	return o
}

// writeOverlay writes those files. nsswitch is the machine's own nsswitch.conf.
func (c *captured) writeOverlay(nsswitch string) error {
	conf := fmt.Sprintf("# the member's proxy answers first; the rest goes to the machine's resolvers\nnameserver %s\noptions timeout:2\n", c.host())
	if err := os.WriteFile(filepath.Join(c.runtime, "resolv.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	plain, changed := plainHosts(nsswitch)
	if !changed {
		return nil
	}
	return os.WriteFile(filepath.Join(c.runtime, "nsswitch.conf"), []byte(plain), 0o644)
}

// plainHosts returns an nsswitch.conf in which host names come from files and DNS alone.
func plainHosts(conf string) (plain string, changed bool) {
	var b strings.Builder
	for line := range strings.Lines(conf) {
		if key, rest, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "hosts" && strings.Join(strings.Fields(rest), " ") != "files dns" {
			line, changed = "hosts: files dns\n", true
		}
		b.WriteString(line)
	}
	return b.String(), changed
}
