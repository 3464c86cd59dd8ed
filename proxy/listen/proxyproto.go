// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

// The PROXY protocol, versions 1 and 2 (HAProxy, "The PROXY protocol").
const (
	proxyV1      = "PROXY "
	proxyV2      = "\r\n\r\n\x00\r\nQUIT\n"
	maxProxyV1   = 107
	proxyV2Fixed = 16
	maxProxyV2   = 4096
)

var errProxyHeader = errors.New("the connection does not begin with a valid PROXY protocol header; does the load balancer send it?")

// A proxyHeader is what the header says; invalid addresses mean that the sender
// speaks for itself (UNKNOWN, LOCAL).
type proxyHeader struct {
	src, dst netip.AddrPort
	size     int // bytes it takes
}

// readProxyHeader consumes the header and puts the addresses it names into facts.
func readProxyHeader(conn *netio.Peeked, l *config.Listener, facts *filter.Conn) error {
	var h proxyHeader
	var err error
	_, readErr := conn.Sniff(l.InspectTimeout, func(b []byte) bool {
		h, err = parseProxyHeader(b)
		return !errors.Is(err, errMore)
	})
	if readErr != nil {
		return readErr
	}
	v1 := h.size > 0 && bytes.HasPrefix(conn.Buffered(), []byte(proxyV1))
	switch {
	case err != nil && l.ProxyProtocol.Optional && !startsProxyHeader(conn.Buffered()):
		return nil
	case err != nil:
		return errProxyHeader
	case v1 && !l.ProxyProtocol.V1, !v1 && !l.ProxyProtocol.V2:
		return fmt.Errorf("%w: this version is not accepted here", errProxyHeader)
	}
	if _, err := io.CopyN(io.Discard, readOnly{conn}, int64(h.size)); err != nil {
		return err
	}
	if h.src.IsValid() {
		facts.Remote, facts.Local = h.src, h.dst
	}
	return nil
}

// readOnly hides WriteTo, which would hand over more than is asked for.
type readOnly struct{ r io.Reader }

func (r readOnly) Read(b []byte) (int, error) { return r.r.Read(b) }

func startsProxyHeader(b []byte) bool {
	return bytes.HasPrefix(b, []byte(proxyV1)) || bytes.HasPrefix(b, []byte(proxyV2))
}

// parseProxyHeader reads a header from the start of b; errMore while it is cut short.
func parseProxyHeader(b []byte) (proxyHeader, error) {
	if n := min(len(b), len(proxyV2)); string(b[:n]) == proxyV2[:n] {
		if n < len(proxyV2) || len(b) < proxyV2Fixed {
			return proxyHeader{}, errMore
		}
		return parseProxyV2(b)
	}
	if n := min(len(b), len(proxyV1)); string(b[:n]) != proxyV1[:n] {
		return proxyHeader{}, errProxyHeader
	}
	end := bytes.Index(b, []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxProxyV1 {
			return proxyHeader{}, errProxyHeader
		}
		return proxyHeader{}, errMore
	}
	return parseProxyV1(string(b[:end]))
}

func parseProxyV1(line string) (proxyHeader, error) {
	h := proxyHeader{size: len(line) + 2}
	if h.size > maxProxyV1 {
		return proxyHeader{}, errProxyHeader
	}
	f := strings.Split(line, " ")
	if len(f) >= 2 && f[1] == "UNKNOWN" {
		return h, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return proxyHeader{}, errProxyHeader
	}
	src, err1 := joinAddr(f[2], f[4])
	dst, err2 := joinAddr(f[3], f[5])
	if err1 != nil || err2 != nil || src.Addr().Is4() != (f[1] == "TCP4") || dst.Addr().Is4() != src.Addr().Is4() {
		return proxyHeader{}, errProxyHeader
	}
	h.src, h.dst = src, dst
	return h, nil
}

func joinAddr(host, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var n uint16
	for _, c := range []byte(port) {
		d := uint16(c - '0')
		if d > 9 || n > 6553 || n == 6553 && d > 5 {
			return netip.AddrPort{}, errProxyHeader
		}
		n = n*10 + d
	}
	if port == "" {
		return netip.AddrPort{}, errProxyHeader
	}
	return netip.AddrPortFrom(a, n), nil
}

func parseProxyV2(b []byte) (proxyHeader, error) {
	length := int(binary.BigEndian.Uint16(b[14:]))
	h := proxyHeader{size: proxyV2Fixed + length}
	version, command := b[12]>>4, b[12]&15
	if version != 2 || command > 1 || h.size > maxProxyV2 {
		return proxyHeader{}, errProxyHeader
	}
	if len(b) < h.size {
		return proxyHeader{}, errMore
	}
	if command == 0 { // LOCAL: a health check of the sender's own
		return h, nil
	}
	body := b[proxyV2Fixed:h.size]
	switch {
	case b[13] == 0x11 && length >= 12:
		h.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[:4])), binary.BigEndian.Uint16(body[8:]))
		h.dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[4:8])), binary.BigEndian.Uint16(body[10:]))
	case b[13] == 0x21 && length >= 36:
		h.src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[:16])), binary.BigEndian.Uint16(body[32:]))
		h.dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[16:32])), binary.BigEndian.Uint16(body[34:]))
	case b[13] == 0x00: // unspecified
	default:
		return proxyHeader{}, errProxyHeader
	}
	return h, nil
}
