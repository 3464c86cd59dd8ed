// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/match"
)

// A ChainMatch says which connections a chain takes (FilterChainMatch). An empty
// field takes any.
type ChainMatch struct {
	Port         uint16 // destination_port; 0: any
	Destinations []netip.Prefix
	ServerNames  []string // lower case; "*.example.com" has a wildcard
	Transport    string   // "tls" or "raw_buffer"
	Protocols    []string // ALPN, or "http/1.0", "http/1.1", "h2c" as inspected
	DirectSource []netip.Prefix
	SourceType   SourceType
	Sources      []netip.Prefix
	SourcePorts  []uint16
}

// SourceType is where a connection comes from.
type SourceType uint8

// The values of ConnectionSourceType.
const (
	SourceAny      SourceType = iota
	SourceLocal               // the same address, or loopback
	SourceExternal            // everything else
)

// ConnFacts is what choosing a chain may depend on.
type ConnFacts struct {
	Local        netip.AddrPort // where the client wanted to go
	Remote       netip.AddrPort // the client
	DirectRemote netip.AddrPort // the peer of the socket
	SNI          string         // lower case
	Transport    string         // "tls", or "raw_buffer" where TLS was not seen
	Protocols    []string       // in the client's order; nil: none detected
}

// A chainTree is the matches of a listener's chains, one level per criterion.
// On each level the most specific entry is taken, and there is no way back: if
// the levels below it match nothing, less specific entries are not tried.
type chainTree map[uint16]*cidrs[names] // by destination port; 0: any

type (
	names      map[string]transports           // by server name; ".example.com": wildcard; "": any
	transports map[string]protocols            // "": any
	protocols  map[string]*cidrs[*sourceTypes] // by application protocol; "": any
	// sourceTypes is by SourceType, each by source address, by source port (0: any).
	sourceTypes [3]*cidrs[map[uint16]*FilterChain]
)

// cidrs finds the longest prefix.
type cidrs[T any] struct{ list []cidr[T] }

type cidr[T any] struct {
	prefix netip.Prefix
	next   T
}

func (c *cidrs[T]) get(p netip.Prefix, fresh func() T) T {
	i := 0
	for ; i < len(c.list); i++ {
		if c.list[i].prefix == p {
			return c.list[i].next
		}
		if c.list[i].prefix.Bits() < p.Bits() {
			break
		}
	}
	next := fresh()
	c.list = slices.Insert(c.list, i, cidr[T]{p, next})
	return next
}

func (c *cidrs[T]) find(a netip.Addr) (next T, p netip.Prefix, ok bool) {
	a = match.Plain(a)
	if !a.IsValid() { // not an IP connection: only what takes any address
		a = netip.IPv4Unspecified()
	}
	for i := range c.list {
		if c.list[i].prefix.Contains(a) {
			return c.list[i].next, c.list[i].prefix, true
		}
	}
	return next, p, false
}

// maxCombinations bounds the product of the lists of one match.
const maxCombinations = 1 << 16

var everywhere = []netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// newChainTree builds the tree. Two chains whose matches are equal in some
// connection's eyes, at the same level of detail, are an error.
func newChainTree(chains []*FilterChain) (chainTree, error) {
	t := chainTree{}
	for i, c := range chains {
		if err := t.add(c); err != nil {
			return nil, fmt.Errorf("filter_chains[%d] %q: filter_chain_match: %w", i, c.Name, err)
		}
	}
	return t, nil
}

func (t chainTree) add(c *FilterChain) error {
	m := &c.Match
	dest, direct, source := orEverywhere(m.Destinations), orEverywhere(m.DirectSource), orEverywhere(m.Sources)
	sni, alpn := orAny(m.ServerNames), orAny(m.Protocols)
	ports := m.SourcePorts
	if len(ports) == 0 {
		ports = []uint16{0}
	}
	if n := len(dest) * len(sni) * len(alpn) * len(direct) * len(source) * len(ports); n > maxCombinations {
		return fmt.Errorf("%d combinations, more than %d", n, maxCombinations)
	}
	byDest := get(t, m.Port, func() *cidrs[names] { return new(cidrs[names]) })
	for _, d := range dest {
		byName := byDest.get(d, func() names { return names{} })
		for _, name := range sni {
			key, err := nameKey(name)
			if err != nil {
				return err
			}
			byProtocol := get(get(byName, key, func() transports { return transports{} }), m.Transport, func() protocols { return protocols{} })
			for _, p := range alpn {
				byDirect := get(byProtocol, p, func() *cidrs[*sourceTypes] { return new(cidrs[*sourceTypes]) })
				for _, ds := range direct {
					types := byDirect.get(ds, func() *sourceTypes { return new(sourceTypes) })
					if err := types.add(c, m.SourceType, source, ports); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func (s *sourceTypes) add(c *FilterChain, kind SourceType, sources []netip.Prefix, ports []uint16) error {
	if s[kind] == nil {
		s[kind] = new(cidrs[map[uint16]*FilterChain])
	}
	for _, src := range sources {
		byPort := s[kind].get(src, func() map[uint16]*FilterChain { return map[uint16]*FilterChain{} })
		for _, port := range ports {
			if other := byPort[port]; other != nil {
				return fmt.Errorf("equal to that of chain %q", other.Name)
			}
			byPort[port] = c
		}
	}
	return nil
}

func get[K comparable, V any](m map[K]V, k K, fresh func() V) V {
	v, ok := m[k]
	if !ok {
		v = fresh()
		m[k] = v
	}
	return v
}

func orEverywhere(list []netip.Prefix) []netip.Prefix {
	if len(list) == 0 {
		return everywhere
	}
	return list
}

func orAny(list []string) []string {
	if len(list) == 0 {
		return []string{""}
	}
	return list
}

// nameKey is a server name as the tree has it: "*.example.com" is ".example.com".
func nameKey(name string) (string, error) {
	if !strings.Contains(name, "*") {
		return name, nil
	}
	rest, ok := strings.CutPrefix(name, "*.")
	if !ok || rest == "" || strings.Contains(rest, "*") {
		return "", fmt.Errorf(`server name %q: a wildcard must be the whole first label, as in "*.example.com"`, name)
	}
	return name[1:], nil
}

// Choose returns the chain for a connection: the one the tree leads to, else the
// default, else nil (no filter chain matches, NR). It does not allocate.
func (l *Listener) Choose(f *ConnFacts) *FilterChain {
	var w chainWay
	if c := l.tree.find(f, &w); c != nil {
		return c
	}
	return l.Default
}

// ExplainChoice decides as Choose does and says what was decided on each level.
func (l *Listener) ExplainChoice(f *ConnFacts) (chain *FilterChain, steps []string) {
	var w chainWay
	c := l.tree.find(f, &w)
	steps = w.describe(f)
	switch {
	case c != nil:
		return c, append(steps, fmt.Sprintf("chain %q", c.Name))
	case l.Default != nil:
		return l.Default, append(steps, fmt.Sprintf("default chain %q", l.Default.Name))
	}
	return nil, append(steps, "no chain matches and there is no default: the connection is closed (NR)")
}

// A chainWay is what was decided on each level, as far as find got.
type chainWay struct {
	levels         int
	anyPort        bool
	destination    netip.Prefix
	name           string
	anyTransport   bool
	protocol       string
	direct, source netip.Prefix
}

func (w *chainWay) describe(f *ConnFacts) []string {
	level := func(what string, value, taken any) string {
		return fmt.Sprintf("%s %v: chains for %v", what, value, taken)
	}
	or := func(any bool, s string) string {
		if any || s == "" {
			return "any"
		}
		return s
	}
	port := fmt.Sprint(f.Local.Port())
	all := []string{
		level("destination port", port, or(w.anyPort, port)),
		level("destination address", f.Local.Addr(), w.destination),
		level("server name", fmt.Sprintf("%q", f.SNI), or(false, w.name)),
		level("transport protocol", f.Transport, or(w.anyTransport, f.Transport)),
		level("application protocols", fmt.Sprintf("%q", f.Protocols), or(false, w.protocol)),
		level("direct source", f.DirectRemote.Addr(), w.direct),
		level("source", f.Remote, w.source),
	}
	if w.levels == len(all) {
		return all
	}
	failed, _, _ := strings.Cut(all[w.levels], ": chains for ")
	return append(all[:w.levels], failed+": no chain")
}

// find walks the tree and notes the way.
func (t chainTree) find(f *ConnFacts, w *chainWay) *FilterChain {
	byDest, ok := t[f.Local.Port()]
	if !ok {
		if byDest, ok = t[0]; !ok {
			return nil
		}
		w.anyPort = true
	}
	w.levels++
	byName, prefix, ok := byDest.find(f.Local.Addr())
	if !ok {
		return nil
	}
	w.levels, w.destination = w.levels+1, prefix
	byTransport, name := byName.find(f.SNI)
	if byTransport == nil {
		return nil
	}
	w.levels, w.name = w.levels+1, name
	byProtocol := byTransport[f.Transport]
	if byProtocol == nil {
		if byProtocol = byTransport[""]; byProtocol == nil {
			return nil
		}
		w.anyTransport = true
	}
	w.levels++
	byDirect, proto := byProtocol.find(f.Protocols)
	if byDirect == nil {
		return nil
	}
	w.levels, w.protocol = w.levels+1, proto
	types, prefix, ok := byDirect.find(f.DirectRemote.Addr())
	if !ok {
		return nil
	}
	w.levels, w.direct = w.levels+1, prefix
	c, prefix := types.find(f)
	if c != nil {
		w.levels, w.source = w.levels+1, prefix
	}
	return c
}

func (n names) find(sni string) (transports, string) {
	if t, ok := n[sni]; ok {
		return t, sni
	}
	for i := 1; i < len(sni)-1; i++ {
		if sni[i] == '.' {
			if t, ok := n[sni[i:]]; ok {
				return t, sni[i:]
			}
		}
	}
	return n[""], ""
}

func (p protocols) find(offered []string) (*cidrs[*sourceTypes], string) {
	for _, o := range offered {
		if d, ok := p[o]; ok && o != "" {
			return d, o
		}
	}
	return p[""], ""
}

func (s *sourceTypes) find(f *ConnFacts) (*FilterChain, netip.Prefix) {
	kind := SourceExternal
	if remote := match.Plain(f.Remote.Addr()); remote.IsLoopback() || remote == match.Plain(f.Local.Addr()) {
		kind = SourceLocal
	}
	bySource := s[kind]
	if bySource == nil {
		if bySource = s[SourceAny]; bySource == nil {
			return nil, netip.Prefix{}
		}
	}
	byPort, prefix, ok := bySource.find(f.Remote.Addr())
	if !ok {
		return nil, prefix
	}
	if c := byPort[f.Remote.Port()]; c != nil {
		return c, prefix
	}
	return byPort[0], prefix
}

// checkServerNames refuses what a client can never send.
func checkServerNames(list []string) error {
	for _, n := range list {
		if n == "" || n == "*" {
			return errors.New(`server_names: leave the list out to take any name`)
		}
		if _, err := nameKey(n); err != nil {
			return err
		}
	}
	return nil
}
