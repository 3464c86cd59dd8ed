// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// FuzzUnwrap finds names in bodies that a state-of-the-world server sends without one.
func FuzzUnwrap(f *testing.F) {
	f.Add(typeCluster, []byte("\x0a\x01a"))
	f.Add(typeWrapper, []byte("\x1a\x01a\x22\x03a,b"))
	f.Fuzz(func(t *testing.T, typ string, value []byte) {
		r := (&askSotW{name: firstField}).unwrap(&anypb.Any{TypeUrl: typ, Value: value})
		if err := check(r, typ, nil); err == nil && (r.Name == "" || r.Body == nil) {
			t.Errorf("a resource that cannot be told passes: %+v", r)
		}
	})
}

// FuzzResponses lets random responses and changes of what is wanted meet in a client, in both dialects: nothing panics, each
// response of a type that was asked for is answered, and what is refused or was not asked for is not held.
func FuzzResponses(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e"), false)
	f.Add([]byte("\x00\x01\x01\x01\x01\x00\x02\x02\x02\x02\x00\x01\x01"), true)
	f.Fuzz(func(t *testing.T, in []byte, inc bool) {
		next := func() byte {
			if len(in) == 0 {
				return 0
			}
			b := in[0]
			in = in[1:]
			return b
		}
		d := newDesk()
		d.reject["bad"] = "it is bad"
		s := NewClient(ClientConfig{SotW: !inc}, d)
		x := &session{Subscriber: s, asker: &askDelta{}}
		if !inc {
			x.asker = &askSotW{name: firstField}
		}
		name := func() string { return []string{"a", "b", "bad", "*", ""}[next()%5] }
		types := []string{typeCluster, typeEndpoints, typeRoute}
		wanted := map[string]bool{}
		for len(in) > 0 {
			typ := types[next()%3]
			switch next() % 4 {
			case 0:
				s.Subscribe(typ, name())
				wanted[typ] = true
				continue
			case 1:
				s.Unsubscribe(typ, name())
				continue
			}
			u := &Update{TypeURL: typ, Version: name(), Nonce: "n"}
			for range next() % 4 {
				n := name()
				body, err := anypb.New(wrapperspb.String(n + string('0'+rune(next()%2))))
				if err != nil {
					t.Fatal(err)
				}
				body.TypeUrl = typ
				switch next() % 8 {
				case 0:
					body = nil
				case 1:
					body.TypeUrl = types[0]
				}
				u.Resources = append(u.Resources, Resource{Name: n, Version: "1", Body: body, Aliases: []string{name()}})
			}
			if inc {
				u.Removed = append(u.Removed, name())
			}
			x.apply(u)
			answered := slices.ContainsFunc(x.collect(), func(m any) bool {
				switch m := m.(type) {
				case *discoveryv3.DeltaDiscoveryRequest:
					return m.TypeUrl == typ && m.ResponseNonce == "n"
				case *discoveryv3.DiscoveryRequest:
					return m.TypeUrl == typ && m.ResponseNonce == "n"
				}
				return false
			})
			s.mu.Lock()
			tp := s.topics[typ]
			late := tp != nil && tp.waiting == u
			if tp != nil {
				if _, held := tp.known["bad"]; held {
					t.Error("what was refused is held")
				}
			}
			s.mu.Unlock()
			if wanted[typ] && !answered && !late {
				t.Errorf("a response of %s was not answered", typ)
			}
			if !wanted[typ] && answered {
				t.Errorf("a response of %s, which was never asked for, was answered", typ)
			}
		}
	})
}
