// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

const (
	ttl = 30 // seconds, as Istio's

	minUDP = dns.MinMsgSize // what a client takes that does not say otherwise
	// maxUDP bounds what a client may ask for: what fits into one packet on loopback and veth alike.
	maxUDP = 4096
	maxTCP = dns.MaxMsgSize
)

// A question is one that was read, with what is needed to answer it.
type question struct {
	raw   []byte // as read; forwarded unchanged
	msg   *dns.Msg
	name  string // as asked, letter case and trailing dot included
	qtype uint16
	limit int // bytes the answer may have
}

// parse reads a question. If it cannot be answered with anything but an error, reply is that error,
// or nil if even that would be wrong.
func parse(raw []byte, tcp bool) (q *question, reply []byte) {
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		if len(raw) < 12 || raw[2]&0x80 != 0 { // no header, or an answer: answering answers makes loops
			return nil, nil
		}
		return nil, formatError(raw)
	}
	q = &question{raw: raw, msg: m, limit: minUDP}
	edns := m.IsEdns0()
	switch {
	case tcp:
		q.limit = maxTCP
	case edns != nil:
		q.limit = min(max(int(edns.UDPSize()), minUDP), maxUDP)
	}
	switch {
	case m.Response:
		return nil, nil
	case m.Opcode != dns.OpcodeQuery:
		return nil, q.fail(dns.RcodeNotImplemented)
	case len(m.Question) != 1:
		return nil, q.fail(dns.RcodeFormatError)
	case edns != nil && edns.Version() != 0:
		return nil, q.fail(dns.RcodeBadVers)
	}
	q.name, q.qtype = m.Question[0].Name, m.Question[0].Qtype
	return q, nil
}

// formatError answers a message whose header alone could be read.
func formatError(raw []byte) []byte {
	b := make([]byte, 12)
	copy(b, raw[:2])
	b[2] = raw[2]&0x79 | 0x80 // opcode and RD kept, QR set
	b[3] = dns.RcodeFormatError
	return b
}

// fail returns an answer that carries only rcode.
func (q *question) fail(rcode int) []byte {
	m := q.reply()
	m.Authoritative = false
	m.Rcode = rcode
	return q.pack(m)
}

// reply begins an answer.
func (q *question) reply() *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q.msg)
	m.Authoritative = true
	m.RecursionAvailable = true
	if edns := q.msg.IsEdns0(); edns != nil {
		m.SetEdns0(maxUDP, edns.Do())
	}
	return m
}

// pack returns m, cut to what the client takes.
func (q *question) pack(m *dns.Msg) []byte {
	m.Compress = true
	m.Truncate(q.limit)
	b, err := m.Pack()
	if err != nil {
		// Only a name that unpacked but does not pack again can do this.
		return formatError(q.raw)
	}
	return b
}

// ours reports whether the mesh may answer questions of this kind at all.
func (q *question) ours() bool {
	return q.msg.Question[0].Qclass == dns.ClassINET && (q.qtype == dns.TypeA || q.qtype == dns.TypeAAAA)
}

// answer answers from a record. alias is the name that the asked one stands for, if any; turn rotates the addresses.
func (q *question) answer(r *record, alias string, turn uint32) []byte {
	m := q.reply()
	owner := q.name
	if alias != "" {
		alias = dns.Fqdn(alias)
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(owner, dns.TypeCNAME), Target: alias})
		owner = alias
	}
	switch q.qtype {
	case dns.TypeA:
		for a := range rotated(r.v4, turn) {
			m.Answer = append(m.Answer, &dns.A{Hdr: header(owner, dns.TypeA), A: net.IP(a.AsSlice())})
		}
	case dns.TypeAAAA:
		for a := range rotated(r.v6, turn) {
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header(owner, dns.TypeAAAA), AAAA: net.IP(a.AsSlice())})
		}
	}
	return q.pack(m)
}

func header(name string, rtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rtype, Class: dns.ClassINET, Ttl: ttl}
}

// rotated yields addrs from the turn-th on, and then those before it.
func rotated(addrs []netip.Addr, turn uint32) func(func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		n := uint32(len(addrs))
		for i := range n {
			if !yield(addrs[(turn+i)%n]) {
				return
			}
		}
	}
}
