// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"maps"
	"testing"

	"github.com/meltemi/meltemi/mesh"
)

func TestSubjectKeepsItsLabels(t *testing.T) {
	for _, l := range []mesh.Labels{{}, {"a": "b"}, {"a/b": "", "\"": "\\", "x": "é\"y\""}} {
		s := NewSubject("ns", l)
		if got := s.Labels(); !maps.Equal(got, l) {
			t.Errorf("labels %v came back as %v", l, got)
		}
		if s != NewSubject("ns", maps.Clone(l)) {
			t.Errorf("two subjects of labels %v differ", l)
		}
	}
	if NewSubject("ns", mesh.Labels{"a": "b"}) == NewSubject("ns", mesh.Labels{"a": "c"}) {
		t.Error("subjects of different labels are the same")
	}
}

func TestDelegateMustBeNarrower(t *testing.T) {
	exact := func(s string) *StringMatch { return &StringMatch{Exact, s} }
	prefix := func(s string) *StringMatch { return &StringMatch{Prefix, s} }
	regex := func(s string) *StringMatch { return &StringMatch{Regex, s} }
	for _, c := range []struct {
		name       string
		root, d    HTTPMatch
		ok         bool
		uri        *StringMatch
		ignoreCase bool
	}{
		{"prefix in prefix", HTTPMatch{URI: prefix("/a")}, HTTPMatch{URI: prefix("/a/b")}, true, prefix("/a/b"), false},
		{"exact in prefix", HTTPMatch{URI: prefix("/a")}, HTTPMatch{URI: exact("/ab")}, true, exact("/ab"), false},
		{"prefix elsewhere", HTTPMatch{URI: prefix("/a")}, HTTPMatch{URI: prefix("/b")}, false, nil, false},
		{"wider prefix", HTTPMatch{URI: prefix("/a/b")}, HTTPMatch{URI: prefix("/a")}, false, nil, false},
		{"case folded", HTTPMatch{URI: prefix("/A"), IgnoreCase: true}, HTTPMatch{URI: prefix("/a/b")}, true, prefix("/a/b"), false},
		{"only the root says", HTTPMatch{URI: prefix("/A"), IgnoreCase: true}, HTTPMatch{}, true, prefix("/A"), true},
		{"regex in prefix", HTTPMatch{URI: prefix("/a")}, HTTPMatch{URI: regex("/a.*")}, false, nil, false},
		{"same regex", HTTPMatch{URI: regex("/a.*")}, HTTPMatch{URI: regex("/a.*")}, true, regex("/a.*"), false},
		{"port", HTTPMatch{Port: 80}, HTTPMatch{Port: 81}, false, nil, false},
		{"labels", HTTPMatch{SourceLabels: mesh.Labels{"a": "b"}}, HTTPMatch{SourceLabels: mesh.Labels{"a": "c"}}, false, nil, false},
		{"gateways", HTTPMatch{Gateways: []GatewayName{"a"}}, HTTPMatch{Gateways: []GatewayName{"b"}}, false, nil, false},
	} {
		got, ok := both(&c.root, &c.d)
		if ok != c.ok {
			t.Errorf("%s: ok = %v, want %v", c.name, ok, c.ok)
			continue
		}
		if ok && c.uri != nil && (*got.URI != *c.uri || got.IgnoreCase != c.ignoreCase) {
			t.Errorf("%s: %v, ignoring case %v; want %v, %v", c.name, *got.URI, got.IgnoreCase, *c.uri, c.ignoreCase)
		}
	}
}
