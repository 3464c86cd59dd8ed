// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

// A hasher is a compiled HashPolicy.
type hasher struct {
	*HashPolicy
	regex *rewriter
}

func (e *Entry) compileHash(policies []HashPolicy) error {
	for i := range policies {
		p := &policies[i]
		if p.Kind != HashSourceIP && p.Name == "" {
			return fmt.Errorf("hash policy %d names nothing to hash", i)
		}
		if p.Kind > HashQuery {
			return fmt.Errorf("hash policy %d: kind %d is not known", i, p.Kind)
		}
		re, err := newRewriter(p.Regex)
		if err != nil {
			return fmt.Errorf("hash policy %d: %w", i, err)
		}
		e.hash = append(e.hash, hasher{p, re})
	}
	return nil
}

// A Hash is what the hash policy of a route says of a request.
type Hash struct {
	Value uint64
	OK    bool // false: nothing to hash, any endpoint will do
	// Cookie is a Set-Cookie value to add to the response, so that the client
	// comes back with it; "" for none.
	Cookie string
}

// Hash works out the hash of r, whose client is remote, on a connection to
// local. It allocates only to make a cookie, to rewrite, and for a header in
// several lines. The value is Envoy's for the same configuration (xxHash64), so
// that both send a client to the same endpoint.
func (d *Decision) Hash(r *message.Request, remote, local netip.AddrPort) Hash {
	var h Hash
	if d.Kind != ToCluster {
		return h
	}
	for i := range d.Route.hash {
		p := &d.Route.hash[i]
		if one, ok := p.one(r, remote, local, &h); ok {
			if h.OK {
				one ^= bits.RotateLeft64(h.Value, 1)
			}
			h.Value, h.OK = one, true
		}
		if p.Terminal && h.OK {
			break
		}
	}
	return h
}

func (p *hasher) one(r *message.Request, remote, local netip.AddrPort, h *Hash) (uint64, bool) {
	switch p.Kind {
	case HashHeader:
		return p.header(r)
	case HashCookie:
		value := Cookie(&r.Header, p.Name)
		if value == "" && p.TTL != nil {
			value = cookieValue(remote, local)
			h.Cookie = p.setCookie(value)
		}
		return xxhash.Sum64String(value), value != ""
	case HashSourceIP:
		if !remote.IsValid() {
			return 0, false
		}
		var buf [64]byte
		return xxhash.Sum64(match.Plain(remote.Addr()).AppendTo(buf[:0])), true
	case HashQuery:
		_, query := match.PathOf(r.Path)
		value, ok := match.QueryValue(query, p.Name)
		return xxhash.Sum64String(value), ok
	}
	return 0, false
}

// header hashes all values in sorted order, so that the order of lines does not matter.
func (p *hasher) header(r *message.Request) (uint64, bool) {
	if pseudo, value, ok := match.PseudoField(r, p.Name); pseudo {
		return xxhash.Sum64String(p.rewrite(value)), ok
	}
	first, n := -1, 0
	for i, f := range r.Header.Fields() {
		if match.EqualFold(f.Name, p.Name) {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n == 0 {
		return 0, false
	}
	if n == 1 {
		return xxhash.Sum64String(p.rewrite(r.Header.At(first).Value)), true
	}
	values := make([]string, 0, n)
	for _, f := range r.Header.Fields()[first:] {
		if match.EqualFold(f.Name, p.Name) {
			values = append(values, p.rewrite(f.Value))
		}
	}
	slices.Sort(values)
	return sequence(values), true
}

// sequence hashes strings as Envoy does: the hash of each is the seed of the next.
func sequence(values []string) uint64 {
	seed := uint64(0)
	var d xxhash.Digest
	for _, v := range values {
		d.ResetWithSeed(seed)
		_, _ = d.WriteString(v)
		seed = d.Sum64()
	}
	return seed
}

func (p *hasher) rewrite(value string) string {
	if p.regex == nil {
		return value
	}
	return p.regex.apply(value)
}

// Cookie returns the first value of a cookie in a request's header, without
// quotes, or "".
func Cookie(h *message.Header, name string) string {
	for _, f := range h.Fields() {
		if !match.EqualFold(f.Name, "cookie") {
			continue
		}
		for rest := f.Value; rest != ""; {
			var pair string
			pair, rest, _ = strings.Cut(rest, ";")
			key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if !ok || key != name {
				continue
			}
			if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			return value
		}
	}
	return ""
}

func cookieValue(remote, local netip.AddrPort) string {
	return strconv.FormatUint(xxhash.Sum64String(remote.String()+local.String()), 16)
}

func (p *hasher) setCookie(value string) string {
	var b strings.Builder
	b.WriteString(p.Name + `="` + value + `"`)
	if seconds := int64(*p.TTL / time.Second); seconds > 0 {
		b.WriteString("; Max-Age=" + strconv.FormatInt(seconds, 10))
	}
	if p.Path != "" {
		b.WriteString("; Path=" + p.Path)
	}
	for _, a := range p.Attributes {
		b.WriteString("; " + a.Name)
		if a.Value != "" {
			b.WriteString("=" + a.Value)
		}
	}
	b.WriteString("; HttpOnly")
	return b.String()
}
