// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"net/netip"
	"os"

	"github.com/meltemi/meltemi/dns"
)

// runResolver answers members' questions about names outside of the mesh: they cannot reach the machine's own
// resolver where that listens on loopback.
func (u *up) runResolver(ctx context.Context) error {
	text, err := os.ReadFile(u.cfg.ResolvConf)
	if err != nil {
		u.say(true, "names outside of the mesh are not resolved: %s", err)
		return nil
	}
	cfg := dns.Defaults()
	cfg.Listen = []netip.AddrPort{netip.AddrPortFrom(u.capture.host(), dnsPort)}
	cfg.Upstream = dns.ParseResolvConf(string(text)).Servers
	cfg.Log = u.cfg.Log
	s, err := dns.New(cfg)
	if err != nil {
		return err
	}
	s.Swap(dns.NewTable(nil))
	sockets, err := s.Open(ctx)
	if err != nil {
		u.say(true, "names outside of the mesh are not resolved: %s", err)
		return nil
	}
	return s.Serve(ctx, sockets...)
}
