// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"slices"
	"strings"
)

// domains finds the virtual host of an authority: the exact domain, else the
// longest "*suffix", else the longest "prefix*", else "*".
type domains struct {
	exact    map[string]int32
	suffixes []level // longest first
	prefixes []level
	any      int32 // plus 1; 0: none
}

// A level is the wildcards of one length.
type level struct {
	length int
	hosts  map[string]int32
}

// maxHost is how long an authority may be that is lowered without allocating.
const maxHost = 255

// add notes that domain belongs to host. If it is taken, other is who has it.
func (d *domains) add(domain string, host int32) (other int32, err error) {
	key := strings.ToLower(domain)
	taken := func(m map[string]int32, key string) (int32, error) {
		if o, ok := m[key]; ok {
			return o, fmt.Errorf("domain %q is there already", domain)
		}
		m[key] = host
		return -1, nil
	}
	switch {
	case key == "":
		return -1, fmt.Errorf("an empty domain")
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return -1, fmt.Errorf("domain %q has a character that no host has", domain)
	case key == "*":
		if d.any != 0 {
			return d.any - 1, fmt.Errorf("domain %q is there already", domain)
		}
		d.any = host + 1
		return -1, nil
	case key[0] == '*':
		return taken(levelOf(&d.suffixes, len(key)-1), key[1:])
	case key[len(key)-1] == '*':
		return taken(levelOf(&d.prefixes, len(key)-1), key[:len(key)-1])
	}
	if d.exact == nil {
		d.exact = map[string]int32{}
	}
	return taken(d.exact, key)
}

func levelOf(levels *[]level, length int) map[string]int32 {
	for _, l := range *levels {
		if l.length == length {
			return l.hosts
		}
	}
	l := level{length, map[string]int32{}}
	*levels = append(*levels, l)
	return l.hosts
}

func (d *domains) sort() {
	longest := func(a, b level) int { return b.length - a.length }
	slices.SortFunc(d.suffixes, longest)
	slices.SortFunc(d.prefixes, longest)
}

// find returns the virtual host of authority, or -1.
func (d *domains) find(authority string, ignorePort bool) int32 {
	if d.exact == nil && d.suffixes == nil && d.prefixes == nil {
		return d.any - 1
	}
	host := authority
	if ignorePort {
		host = WithoutPort(host)
	}
	var buf [maxHost]byte
	if len(host) > len(buf) {
		return d.lookup([]byte(strings.ToLower(host)))
	}
	n := copy(buf[:], host)
	for i, c := range buf[:n] {
		if 'A' <= c && c <= 'Z' {
			buf[i] = c + ('a' - 'A')
		}
	}
	return d.lookup(buf[:n])
}

// lookup takes a lower-case host. The conversions to string do not allocate.
func (d *domains) lookup(host []byte) int32 {
	if h, ok := d.exact[string(host)]; ok {
		return h
	}
	for i := range d.suffixes {
		l := &d.suffixes[i]
		if l.length >= len(host) { // "*" stands for at least one character
			continue
		}
		if h, ok := l.hosts[string(host[len(host)-l.length:])]; ok {
			return h
		}
	}
	for i := range d.prefixes {
		l := &d.prefixes[i]
		if l.length >= len(host) {
			continue
		}
		if h, ok := l.hosts[string(host[:l.length])]; ok {
			return h
		}
	}
	return d.any - 1
}

// WithoutPort returns an authority without ":port"; an IPv6 address keeps its brackets.
func WithoutPort(authority string) string {
	colon := strings.LastIndexByte(authority, ':')
	if colon < 0 || strings.IndexByte(authority[colon:], ']') >= 0 {
		return authority
	}
	return authority[:colon]
}
