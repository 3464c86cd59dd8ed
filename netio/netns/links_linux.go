// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// handle opens a netlink connection inside n and passes it to f.
func (n Namespace) handle(f func(h *netlink.Handle) error) error {
	file, err := n.Open()
	if err != nil {
		return err
	}
	defer file.Close()
	h, err := netlink.NewHandleAt(vns.NsHandle(file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink in %s: %w", n, err)
	}
	defer h.Close()
	return f(h)
}

// on finds the link and passes it to f; errors are told with what was to be done.
func (n Namespace) on(link, doing string, f func(*netlink.Handle, netlink.Link) error) error {
	return n.handle(func(h *netlink.Handle) error {
		l, err := h.LinkByName(link)
		if err == nil {
			err = f(h, l)
		}
		if err != nil {
			return fmt.Errorf("%s %s in %s: %w", doing, link, n, err)
		}
		return nil
	})
}

func (n Namespace) setUp(link string) error {
	return n.on(link, "set up", func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetUp(l) })
}

// AddBridge makes a bridge in n, gives it addresses, and sets it up.
func (n Namespace) AddBridge(name string, addrs ...netip.Prefix) error {
	err := n.handle(func(h *netlink.Handle) error {
		a := netlink.NewLinkAttrs()
		a.Name = name
		if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: a}); err != nil {
			return fmt.Errorf("add bridge %s in %s: %w", name, n, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.ready(End{Name: name, Addrs: addrs})
}

// Connect makes a veth pair with one end in each namespace, gives the ends their addresses and bridges and
// sets them up. If that fails half-way, the pair is removed.
func Connect(a, b End) error {
	peer, err := b.Namespace.Open()
	if err != nil {
		return err
	}
	defer peer.Close()
	err = a.Namespace.handle(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = a.Name
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Name, PeerNamespace: netlink.NsFd(int(peer.Fd()))}
		if err := h.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth pair %s in %s, %s in %s: %w", a.Name, a.Namespace, b.Name, b.Namespace, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := errors.Join(a.Namespace.ready(a), b.Namespace.ready(b)); err != nil {
		return errors.Join(err, a.Namespace.DeleteLink(a.Name))
	}
	return nil
}

// ready gives a link its bridge and addresses and sets it up.
func (n Namespace) ready(e End) error {
	if e.Bridge != "" {
		err := n.on(e.Name, "add to bridge "+e.Bridge+":", func(h *netlink.Handle, l netlink.Link) error {
			bridge, err := h.LinkByName(e.Bridge)
			if err != nil {
				return err
			}
			return h.LinkSetMaster(l, bridge)
		})
		if err != nil {
			return err
		}
	}
	for _, p := range e.Addrs {
		if err := n.AddAddr(e.Name, p); err != nil {
			return err
		}
	}
	return n.setUp(e.Name)
}

// AddAddr gives a link an address; it is usable at once (no duplicate address detection). An address
// that it has already is no error.
func (n Namespace) AddAddr(link string, p netip.Prefix) error {
	return n.on(link, "add address "+p.String()+" to", func(h *netlink.Handle, l netlink.Link) error {
		addr := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		err := h.AddrAdd(l, addr)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	})
}

// AddDefaultRoute sends what has no other route to gateway.
func (n Namespace) AddDefaultRoute(gateway netip.Addr) error {
	return n.handle(func(h *netlink.Handle) error {
		everything := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if gateway.Is4() {
			everything = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		err := h.RouteAdd(&netlink.Route{Dst: ipNet(everything), Gw: gateway.AsSlice()})
		if err != nil {
			return fmt.Errorf("default route through %s in %s: %w", gateway, n, err)
		}
		return nil
	})
}

// DeleteLink removes a link and, with a veth, its other end. One that does not exist is deleted already.
func (n Namespace) DeleteLink(name string) error {
	err := n.on(name, "delete", func(h *netlink.Handle, l netlink.Link) error { return h.LinkDel(l) })
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) { // the kernel may have taken it down just now
		return nil
	}
	return err
}

// Links returns the names of n's links that begin with prefix.
func (n Namespace) Links(prefix string) (names []string, err error) {
	err = n.handle(func(h *netlink.Handle) error {
		links, err := h.LinkList()
		if err != nil {
			return fmt.Errorf("list links of %s: %w", n, err)
		}
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, prefix) {
				names = append(names, l.Attrs().Name)
			}
		}
		return nil
	})
	return names, err
}

// Routes returns the IPv4 and IPv6 ranges that n has routes to, default routes apart.
func (n Namespace) Routes() (ranges []netip.Prefix, err error) {
	err = n.handle(func(h *netlink.Handle) error {
		routes, err := h.RouteList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list routes of %s: %w", n, err)
		}
		for _, r := range routes {
			if r.Dst == nil {
				continue
			}
			ones, _ := r.Dst.Mask.Size()
			if a, ok := netip.AddrFromSlice(r.Dst.IP); ok && ones > 0 {
				ranges = append(ranges, netip.PrefixFrom(a.Unmap(), ones))
			}
		}
		return nil
	})
	return ranges, err
}

// DefaultLinks returns the names of the links that default routes lead through.
func (n Namespace) DefaultLinks() (names []string, err error) {
	err = n.handle(func(h *netlink.Handle) error {
		routes, err := h.RouteList(nil, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("list routes of %s: %w", n, err)
		}
		for _, r := range routes {
			if ones := 0; r.Dst != nil {
				if ones, _ = r.Dst.Mask.Size(); ones > 0 {
					continue
				}
			}
			l, err := h.LinkByIndex(r.LinkIndex)
			if err != nil {
				return fmt.Errorf("default route of %s: %w", n, err)
			}
			if !slices.Contains(names, l.Attrs().Name) {
				names = append(names, l.Attrs().Name)
			}
		}
		return nil
	})
	return names, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
