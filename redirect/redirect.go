// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package redirect diverts a workload's traffic to its proxy.
//
//	redirect.go   Spec to Rules: pure, the same on any machine
//	share.go      Rules that let namespaces reach the world through the machine; pure
//	text.go       Rules as an nft(8) script, for people and golden files
//	apply.go      Rules into the kernel of one network namespace, over netlink; no binaries needed
//
// What is captured: TCP that leaves the workload goes to the proxy's outbound port, TCP that arrives to
// its inbound port, and, if wanted, DNS questions to its DNS port. What is not: the proxy's own
// traffic, the workload talking to itself over loopback, and what Spec excludes.
//
// The proxy's own traffic is known by any of: a mark on its sockets (SO_MARK, which needs
// CAP_NET_ADMIN to set, so an application without it cannot slip past its proxy), its user, its group.
// A mark lets proxy and application run as one user; a separate user needs no capability. With both
// named, either suffices, so a proxy that could not set its mark is still not captured by itself.
package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/meltemi/meltemi/netio"
)

// ProxyMark is the mark on a proxy's sockets: 1337, as Istio has it.
const ProxyMark = 0x539

// A Spec says what to capture.
type Spec struct {
	Outbound uint16 // proxy's port for TCP that leaves; 0 captures none
	Inbound  uint16 // proxy's port for TCP that arrives; 0 captures none
	DNS      uint16 // proxy's port for DNS over UDP and TCP; 0 captures none

	// Who the proxy is; at least one of the three.
	Mark uint32
	UIDs []uint32
	GIDs []uint32

	// HBONE is where tunnels arrive, which are not captured a second time.
	HBONE uint16

	ExcludeInboundPorts  []uint16
	OnlyInboundPorts     []uint16 // if any: these alone
	ExcludeOutboundPorts []uint16
	ExcludeOutbound      []netip.Prefix
	OnlyOutbound         []netip.Prefix // if any: these alone, and IncludeOutboundPorts
	IncludeOutboundPorts []uint16       // captured whatever the address
	ExcludeInterfaces    []string       // traffic through them is left alone both ways
	DNSServers           []netip.Addr   // if any: only questions to these are captured

	IPv4Only bool // leaves IPv6 alone, uncaptured
}

// Defaults captures everything for a proxy with Istio's ports, mark and user.
func Defaults() Spec {
	return Spec{
		Outbound: 15001, Inbound: 15006, DNS: 15053, HBONE: 15008,
		Mark: ProxyMark, UIDs: []uint32{1337}, GIDs: []uint32{1337},
		ExcludeInboundPorts: []uint16{15090, 15021, 15020},
	}
}

// Rules are what a kernel has to do for a Spec. They are a value: compare, print and keep them freely.
type Rules struct {
	Table  string // of family inet
	Chains []Chain
	// Loopback are addresses that the rules rely on and a fresh namespace lacks.
	Loopback []netip.Prefix
}

// A Chain is a list of rules tried in order; the first verdict counts.
type Chain struct {
	Name     string
	Type     string // "nat" or "filter"
	Hook     Hook
	Priority int
	Rules    []Rule
}

// Hook is where in the kernel's path a chain sits.
type Hook string

// The hooks that are used: the two ends at which a connection begins, and the way through.
const (
	Output      Hook = "output"
	Prerouting  Hook = "prerouting"
	Forward     Hook = "forward"
	Postrouting Hook = "postrouting"
)

// A Rule is a verdict for packets that all of Match hold for.
type Rule struct {
	Match   []Match
	Verdict Verdict
	Value   uint16 // the port of Redirect, the zone of SetZone
	Why     string
}

// Verdict is what a rule does.
type Verdict int

// The verdicts there are.
const (
	Return     Verdict = iota // leave the packet alone
	Redirect                  // to the local port Value
	SetZone                   // track the connection in zone Value; later rules are still tried
	Masquerade                // give it the address of the interface it leaves by
	Drop
)

// A Match is one condition. Which of the values counts depends on Field.
type Match struct {
	Field  Field
	Not    bool
	Number uint32       // Proto, ports, Mark, UID, GID
	Prefix netip.Prefix // Source, Destination
	Name   string       // interfaces
}

// Field is what a Match looks at.
type Field int

// The fields there are.
const (
	InInterface Field = iota
	OutInterface
	Family // Number: 4 or 6
	Source
	Destination
	Proto // Number: TCP or UDP
	SourcePort
	DestinationPort
	Mark
	UID
	GID
	New // the packet begins a connection
)

// Protocol numbers of IANA's registry.
const (
	TCP = 6
	UDP = 17
)

const (
	priorityRaw = -300 // before connection tracking
	priorityNAT = -100

	dnsPort = 53
	// The zones keep a question of the application and the proxy's own question upstream
	// apart even when both use the same source port.
	zoneUpstream    = 1
	zoneApplication = 2
)

// Capture returns the rules for s: the same Spec gives the same Rules anywhere.
func Capture(s Spec) (Rules, error) {
	if s.Mark == 0 && len(s.UIDs) == 0 && len(s.GIDs) == 0 {
		return Rules{}, errors.New("redirect: the proxy has neither mark nor user nor group: its own traffic would be captured for ever")
	}
	if s.Outbound != 0 && s.Outbound == s.Inbound {
		return Rules{}, fmt.Errorf("redirect: port %d cannot be both the outbound and the inbound side", s.Inbound)
	}
	for _, p := range slices.Concat(s.ExcludeOutbound, s.OnlyOutbound) {
		if !p.IsValid() {
			return Rules{}, errors.New("redirect: an outbound address range is invalid")
		}
	}
	c := capture{Spec: s}
	r := Rules{Table: "meltemi"}
	if s.DNS != 0 {
		r.Chains = append(r.Chains, c.dnsZones(Output), c.dnsZones(Prerouting))
	}
	if s.Outbound != 0 || s.DNS != 0 {
		r.Chains = append(r.Chains, c.output())
	}
	if s.Inbound != 0 {
		r.Chains = append(r.Chains, c.prerouting())
		if !s.IPv4Only {
			r.Loopback = []netip.Prefix{netip.PrefixFrom(netio.InboundPassthrough6, 128)}
		}
	}
	return r, nil
}

// capture holds the small builders below.
type capture struct{ Spec }

// owners returns one condition per way in which the proxy may be known.
func (c capture) owners() []Match {
	var ms []Match
	if c.Mark != 0 {
		ms = append(ms, Match{Field: Mark, Number: c.Mark})
	}
	for _, id := range c.UIDs {
		ms = append(ms, Match{Field: UID, Number: id})
	}
	for _, id := range c.GIDs {
		ms = append(ms, Match{Field: GID, Number: id})
	}
	return ms
}

// hosts returns one single-address prefix per IP family that is captured.
func (c capture) hosts(v4, v6 netip.Addr) []netip.Prefix {
	ps := []netip.Prefix{netip.PrefixFrom(v4, 32)}
	if !c.IPv4Only {
		ps = append(ps, netip.PrefixFrom(v6, 128))
	}
	return ps
}

// redirect returns a rule to port, limited to the captured families.
func (c capture) redirect(port uint16, why string, ms ...Match) Rule {
	named := slices.ContainsFunc(ms, func(m Match) bool { return m.Field == Destination })
	if c.IPv4Only && !named {
		ms = append([]Match{{Field: Family, Number: 4}}, ms...)
	}
	return Rule{Match: ms, Verdict: Redirect, Value: port, Why: why}
}

func pass(why string, ms ...Match) Rule { return Rule{Match: ms, Why: why} }

func proto(n uint32) Match                 { return Match{Field: Proto, Number: n} }
func to(port uint16) Match                 { return Match{Field: DestinationPort, Number: uint32(port)} }
func from(port uint16) Match               { return Match{Field: SourcePort, Number: uint32(port)} }
func not(m Match) Match                    { m.Not = true; return m }
func prefix(f Field, p netip.Prefix) Match { return Match{Field: f, Prefix: p.Masked()} }

var overLoopback = Match{Field: OutInterface, Name: "lo"}

// output decides about connections that begin inside the workload's namespace.
func (c capture) output() Chain {
	ch := Chain{Name: "output", Type: "nat", Hook: Output, Priority: priorityNAT}
	add := func(r ...Rule) { ch.Rules = append(ch.Rules, r...) }

	for _, p := range c.hosts(netio.InboundPassthrough4, netio.InboundPassthrough6) {
		add(pass("the inbound side calls its application", overLoopback, prefix(Source, p)))
	}
	if c.Inbound != 0 {
		add(c.toItself()...)
	}
	for _, owner := range c.owners() {
		add(pass("the proxy's own", owner))
	}
	for _, name := range c.ExcludeInterfaces {
		add(pass("excluded interface", Match{Field: OutInterface, Name: name}))
	}
	if c.DNS != 0 { // before loopback is let pass: resolvers often listen there
		for _, n := range []uint32{UDP, TCP} {
			for _, server := range c.dnsServers() {
				add(c.redirect(c.DNS, "DNS question", append(server, proto(n), to(dnsPort))...))
			}
		}
	}
	if c.Outbound == 0 {
		return ch
	}
	add(pass("the application calls itself", overLoopback))
	for _, port := range c.ExcludeOutboundPorts {
		add(pass("excluded port", proto(TCP), to(port)))
	}
	for _, p := range c.ExcludeOutbound {
		add(pass("excluded range", prefix(Destination, p)))
	}
	for _, port := range c.IncludeOutboundPorts {
		add(c.redirect(c.Outbound, "included port", proto(TCP), to(port)))
	}
	for _, p := range c.OnlyOutbound {
		if c.IPv4Only && !p.Addr().Is4() {
			continue
		}
		add(c.redirect(c.Outbound, "included range", prefix(Destination, p), proto(TCP)))
	}
	if len(c.OnlyOutbound) == 0 {
		add(c.redirect(c.Outbound, "everything else", proto(TCP)))
	}
	return ch
}

// toItself sends what the outbound side forwards to its own workload through the inbound side, so
// that policies hold there, too.
func (c capture) toItself() (rules []Rule) {
	loopback := c.hosts(netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	for _, owner := range c.owners() {
		for _, lo := range loopback {
			ms := []Match{owner, overLoopback, not(prefix(Destination, lo)), proto(TCP)}
			if c.DNS != 0 {
				ms = append(ms, not(to(dnsPort)))
			}
			if c.HBONE != 0 {
				ms = append(ms, not(to(c.HBONE)))
			}
			rules = append(rules, Rule{Match: ms, Verdict: Redirect, Value: c.Inbound, Why: "the proxy calls its own workload"})
		}
	}
	return rules
}

// dnsServers returns the conditions under which a question is captured: one per server, or none at all.
func (c capture) dnsServers() [][]Match {
	if len(c.DNSServers) == 0 {
		return [][]Match{nil}
	}
	var all [][]Match
	for _, a := range c.DNSServers {
		if !a.Is4() && c.IPv4Only {
			continue
		}
		all = append(all, []Match{prefix(Destination, netip.PrefixFrom(a, a.BitLen()))})
	}
	return all
}

// prerouting decides about connections that arrive from outside.
func (c capture) prerouting() Chain {
	ch := Chain{Name: "prerouting", Type: "nat", Hook: Prerouting, Priority: priorityNAT}
	add := func(r ...Rule) { ch.Rules = append(ch.Rules, r...) }
	for _, name := range c.ExcludeInterfaces {
		add(pass("excluded interface", Match{Field: InInterface, Name: name}))
	}
	if c.HBONE != 0 {
		add(pass("tunnels end at the proxy", proto(TCP), to(c.HBONE)))
	}
	for _, port := range c.ExcludeInboundPorts {
		add(pass("excluded port", proto(TCP), to(port)))
	}
	for _, port := range c.OnlyInboundPorts {
		add(c.redirect(c.Inbound, "included port", proto(TCP), to(port)))
	}
	if len(c.OnlyInboundPorts) == 0 {
		add(c.redirect(c.Inbound, "everything else", proto(TCP)))
	}
	return ch
}

// dnsZones keeps captured questions and the proxy's own upstream questions in separate tracking zones.
func (c capture) dnsZones(h Hook) Chain {
	ch := Chain{Name: "dns_" + string(h), Type: "filter", Hook: h, Priority: priorityRaw}
	zone := func(z uint16, why string, ms ...Match) {
		ch.Rules = append(ch.Rules, Rule{Match: ms, Verdict: SetZone, Value: z, Why: why})
	}
	if h == Prerouting {
		zone(zoneUpstream, "answers to the proxy", proto(UDP), from(dnsPort))
		return ch
	}
	for _, server := range c.dnsServers() {
		zone(zoneApplication, "questions of the application", append(server, proto(UDP), to(dnsPort))...)
	}
	zone(zoneApplication, "answers to the application", proto(UDP), from(c.DNS))
	for _, owner := range c.owners() {
		zone(zoneUpstream, "questions of the proxy", owner, proto(UDP), to(dnsPort))
	}
	return ch
}
