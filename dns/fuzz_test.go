// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"
)

// FuzzQuestion feeds packets to the part that answers without waiting. Whatever comes, an answer must be
// readable, fit the client, and carry the question's ID.
func FuzzQuestion(f *testing.F) {
	for _, name := range []string{"reviews.", "a.wild.example.com.", "reviews.corp.internal.", "nobody."} {
		for _, edns := range []bool{false, true} {
			m := new(dns.Msg)
			m.SetQuestion(name, dns.TypeA)
			if edns {
				m.SetEdns0(1232, true)
			}
			b, _ := m.Pack()
			f.Add(b, edns)
		}
	}
	f.Add([]byte{7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63}, false)
	cfg := Defaults()
	cfg.Scope = Scope{Namespace: "default", Search: "corp.internal"}
	s, err := New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	s.Swap(shop())
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		before := bytes.Clone(packet)
		reply, q := s.here(packet, tcp)
		if !bytes.Equal(before, packet) {
			t.Fatal("the packet was written to")
		}
		if reply == nil && q != nil {
			reply = q.fail(dns.RcodeServerFailure)
		}
		if reply == nil {
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("unreadable answer % x: %v", reply, err)
		}
		limit := maxUDP
		if tcp {
			limit = maxTCP
		}
		if !m.Response || !bytes.Equal(reply[:2], packet[:2]) || len(reply) > limit {
			t.Fatalf("answer % x to % x", reply, packet)
		}
	})
}

// FuzzAnswers checks the comparison of a resolver's answer with the question for panics.
func FuzzAnswers(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("reviews.", dns.TypeA)
	q, _ := m.Pack()
	r := new(dns.Msg)
	r.SetReply(m)
	rb, _ := r.Pack()
	f.Add(rb, q)
	f.Fuzz(func(t *testing.T, reply, question []byte) {
		if len(question) < 12 {
			return
		}
		if answers(reply, question) && !bytes.Equal(reply[:2], question[:2]) {
			t.Fatal("answers another question")
		}
	})
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 1.1.1.1\nsearch a b\n")
	f.Fuzz(func(t *testing.T, text string) {
		if rc := ParseResolvConf(text); len(rc.Servers) > 3 {
			t.Fatal(rc)
		}
	})
}
