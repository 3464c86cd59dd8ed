// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sanitize

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

const (
	forwardedFor    = "x-forwarded-for"
	forwardedProto  = "x-forwarded-proto"
	forwardedPort   = "x-forwarded-port"
	externalAddress = "x-envoy-external-address"
	internalRequest = "x-envoy-internal"
)

// client works out who the client is, and writes x-forwarded-* accordingly.
// single is true if exactly one address is known of.
func client(h *message.Header, cfg *config.HTTP, conn *filter.Conn) (remote netip.AddrPort, single bool) {
	list, has := h.Joined(forwardedFor)
	if cfg.UseRemoteAddress {
		remote = conn.Remote
		if cfg.TrustedHops > 0 && list != "" {
			if a, _, ok := fromRight(list, cfg.TrustedHops-1); ok {
				remote = netip.AddrPortFrom(a, 0)
			}
		}
		if !cfg.SkipForwardedFor && conn.Remote.IsValid() {
			peer := conn.Remote.Addr().Unmap().WithZone("").String()
			if has && list != "" {
				peer = list + "," + peer
			}
			h.Set(forwardedFor, peer)
		}
		if cfg.TrustedHops == 0 || !h.Has(forwardedProto) {
			h.Set(forwardedProto, conn.Scheme())
		}
		if cfg.AppendForwardedPort && (cfg.TrustedHops == 0 || !h.Has(forwardedPort)) {
			h.Set(forwardedPort, strconv.Itoa(int(conn.Local.Port())))
		}
		return remote, !has
	}
	if !h.Has(forwardedProto) {
		h.Add(forwardedProto, conn.Scheme())
	}
	if cfg.AppendForwardedPort && !h.Has(forwardedPort) {
		h.Add(forwardedPort, strconv.Itoa(int(conn.Local.Port())))
	}
	if list == "" {
		return conn.Remote, false
	}
	a, alone, ok := fromRight(list, cfg.TrustedHops)
	if !ok {
		return conn.Remote, false
	}
	return netip.AddrPortFrom(a, 0), alone
}

// fromRight returns the address that has skip others to its right in a list, and
// whether it is the only one.
func fromRight(list string, skip uint32) (a netip.Addr, alone, ok bool) {
	alone = strings.IndexByte(list, ',') < 0
	for ; ; skip-- {
		i := strings.LastIndexByte(list, ',')
		if skip == 0 {
			list = list[i+1:]
			break
		}
		if i < 0 {
			return netip.Addr{}, false, false
		}
		list = list[:i]
	}
	a, err := netip.ParseAddr(strings.TrimSpace(list))
	if err != nil {
		return netip.Addr{}, false, false
	}
	return a.Unmap().WithZone(""), alone, true
}

// isInternal judges a client's address; one that has none came by a unix socket.
func isInternal(a netip.Addr, cfg *config.HTTP) bool {
	if !a.IsValid() {
		return cfg.InternalUnix
	}
	for _, p := range cfg.Internal {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// scheme is what the client used, as far as it can be trusted.
func scheme(h *message.Header, cfg *config.HTTP, conn *filter.Conn, asked string) string {
	switch {
	case cfg.SchemeOverwrite != "":
		return cfg.SchemeOverwrite
	case cfg.SchemeMatchesTLS:
		return conn.Scheme()
	}
	switch p := h.Get(forwardedProto); {
	case strings.EqualFold(p, "https"):
		return "https"
	case strings.EqualFold(p, "http"):
		return "http"
	}
	if asked == "http" || asked == "https" {
		return asked
	}
	return conn.Scheme()
}
