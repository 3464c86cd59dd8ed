// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/xds"
)

func tableUpdate(t testing.TB, m *routev3.RouteConfiguration) xds.Update {
	t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return xds.Update{TypeURL: TypeRoute, Resources: []xds.Resource{{Name: m.Name, Body: body}}}
}

func TestHostsThatStayAreNotReadAgain(t *testing.T) {
	w := newWorld(t)
	m := hostsWith(3, 10)
	w.Apply(tableUpdate(t, m))
	first := w.Route("80").Load()
	m.VirtualHosts[1] = weighted(1, 20)
	m.VirtualHosts[0], m.VirtualHosts[2] = m.VirtualHosts[2], m.VirtualHosts[0]
	w.Apply(tableUpdate(t, m))
	second := w.Route("80").Load()
	if second == first {
		t.Fatal("the new table is not in force")
	}
	was, is := first.Config().VirtualHosts, second.Config().VirtualHosts
	if is[0] != was[2] || is[2] != was[0] {
		t.Error("hosts that have only moved were read again")
	}
	if is[1] == was[1] || is[1].Routes[1].Forward.Clusters[0].Weight != 20 {
		t.Error("the host that changed was not read again")
	}

	bad := proto.Clone(m).(*routev3.RouteConfiguration)
	bad.VirtualHosts[2].Domains = nil
	refused := w.Apply(tableUpdate(t, bad))
	if len(refused) != 1 || !strings.Contains(refused[0].Err.Error(), "virtual_hosts[2]: invalid") || w.Route("80").Load() != second {
		t.Fatalf("a table with a bad host gave %v", refused)
	}
	m.VirtualHosts[1] = weighted(1, 30)
	w.Apply(tableUpdate(t, m))
	if third := w.Route("80").Load(); third.Config().VirtualHosts[0] != is[0] {
		t.Error("hosts that stay were read again after a table that was refused")
	}
}

func TestTablesThatSayTheSameAreTheSame(t *testing.T) {
	w := newWorld(t)
	m := hostsWith(2, 10)
	w.Apply(tableUpdate(t, m))
	first := w.Route("80").Load()
	u := tableUpdate(t, m)
	u.Resources[0].Body.Value = append(u.Resources[0].Body.Value[len("\x0a\x0280"):], "\x0a\x0280"...) // the name comes last
	if refused := w.Apply(u); len(refused) > 0 || w.Route("80").Load() != first {
		t.Errorf("a table in another order of fields replaced the one in force (%v)", refused)
	}
}

func TestBodiesOfDirectResponsesAreReadAgain(t *testing.T) {
	w := newWorld(t)
	says := "one"
	w.cfg.ReadFile = func(string) ([]byte, error) { return []byte(says), nil }
	m := hostsWith(2, 10)
	m.VirtualHosts[0].Routes = []*routev3.Route{{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200, Body: &corev3.DataSource{
			Specifier: &corev3.DataSource_Filename{Filename: "/body"},
		}}},
	}}
	w.Apply(tableUpdate(t, m))
	says = "two"
	m.VirtualHosts[1] = weighted(1, 20)
	w.Apply(tableUpdate(t, m))
	if got := w.Route("80").Load().Config().VirtualHosts[0].Routes[0].Direct.Body; got != says {
		t.Errorf("the body is %q, want what the file holds: %q", got, says)
	}
	m.MaxDirectResponseBodySizeBytes = wrapperspb.UInt32(1)
	if refused := w.Apply(tableUpdate(t, m)); len(refused) != 1 {
		t.Error("a table whose limit is below a body was taken")
	}
}

// Tables share hosts: one is matched against while the next is compiled.
func TestSharedHostsAreNotWrittenTo(t *testing.T) {
	w := newWorld(t)
	m := hostsWith(20, 10)
	for _, vh := range m.VirtualHosts {
		vh.RetryPolicy = vh.Routes[0].GetRoute().RetryPolicy
		for _, r := range vh.Routes {
			r.GetRoute().RetryPolicy = nil
		}
	}
	w.Apply(tableUpdate(t, m))
	table := w.Route("80").Load()
	var readers sync.WaitGroup
	stop := make(chan struct{})
	readers.Go(func() {
		r := &message.Request{Method: "GET", Authority: "s1.default", Path: "/"}
		for {
			if d := table.Match(r, &route.Facts{}); d.Route == nil || d.Route.Forward.Retry == nil || d.Route.Forward.Mirrors != nil {
				t.Error("no match")
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for i := range uint32(20) {
		m.VirtualHosts[0] = weighted(0, 20+i)
		if refused := w.Apply(tableUpdate(t, m)); len(refused) > 0 {
			t.Error(refused)
		}
	}
	close(stop)
	readers.Wait()
}

// A table made of hosts that were there comes to what it comes to if all is read.
func FuzzHostsAgreeWithWholeTable(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add([]byte("\x03\x09\x01\x02\x03\x02\x01\x02\x04\x03\x05\x06\x07\x01\x01\x02\x02\x02\x0b\x0c\x0d\x0e"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 100 {
			return
		}
		w := newWorld(t)
		m := &routev3.RouteConfiguration{Name: "80"}
		for i := 0; i+2 < len(data); i += 3 {
			changeTable(t, m, data[i], data[i+1], data[i+2])
			u := tableUpdate(t, m)
			if data[i]%16 == 15 {
				b := u.Resources[0].Body.Value
				b[int(data[i+1])%len(b)] ^= data[i+2]
			}
			before := w.Route("80").Load()
			refused := w.Apply(u)

			all := &routev3.RouteConfiguration{}
			err := strict.Unmarshal(u.Resources[0].Body, all)
			if err == nil && all.Name != "80" {
				err = fmt.Errorf("another name")
			}
			var want *decode.Table
			if err == nil {
				want, err = w.builder.reader().Table(all)
			}
			if err != nil != (len(refused) > 0) {
				t.Fatalf("refused: %v; read as a whole: %v", refused, err)
			}
			got := w.Route("80").Load()
			if err != nil {
				if got != before {
					t.Fatal("a table that was refused is in force")
				}
				continue
			}
			if !reflect.DeepEqual(got.Config(), want.Config()) || !reflect.DeepEqual(got.Settings, want.Settings) ||
				!reflect.DeepEqual(got.Clusters(), want.Clusters()) || got.Slots() != want.Slots() {
				t.Fatalf("got  %+v\nwant %+v", got.Config(), want.Config())
			}
		}
	})
}

// changeTable makes one change to m.
func changeTable(t *testing.T, m *routev3.RouteConfiguration, what, where, n byte) {
	if len(m.VirtualHosts) == 0 || what%16 < 3 {
		m.VirtualHosts = append(m.VirtualHosts, weighted(int(where), uint32(n%100)))
		return
	}
	at := int(where) % len(m.VirtualHosts)
	vh := proto.Clone(m.VirtualHosts[at]).(*routev3.VirtualHost)
	m.VirtualHosts[at] = vh
	switch what % 16 {
	case 3:
		m.VirtualHosts = append(m.VirtualHosts[:at], m.VirtualHosts[at+1:]...)
	case 4:
		m.VirtualHosts[0], m.VirtualHosts[at] = m.VirtualHosts[at], m.VirtualHosts[0]
	case 5:
		vh.Domains = nil
	case 6:
		m.MaxDirectResponseBodySizeBytes = wrapperspb.UInt32(uint32(n))
	case 7:
		vh.Routes = vh.Routes[:0]
		vh.Routes = append(vh.Routes, &routev3.Route{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200, Body: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: strings.Repeat("x", int(n))},
			}}},
		})
	case 8, 9:
		cors, err := anypb.New(&corsv3.CorsPolicy{AllowMethods: fmt.Sprint(n)})
		if err != nil {
			t.Fatal(err)
		}
		of := &vh.TypedPerFilterConfig
		switch {
		case n%3 == 0:
			of = &m.TypedPerFilterConfig
		case n%3 == 1 && len(vh.Routes) > 0:
			of = &vh.Routes[0].TypedPerFilterConfig
		}
		*of = map[string]*anypb.Any{"envoy.filters.http.cors": cors}
	case 10:
		m.IgnorePortInHostMatching = !m.IgnorePortInHostMatching
	case 11:
		vh.RetryPolicy = &routev3.RetryPolicy{RetryOn: "5xx", NumRetries: wrapperspb.UInt32(uint32(n))}
		if len(vh.Routes) > 0 && vh.Routes[0].GetRoute() != nil {
			vh.Routes[0].GetRoute().RetryPolicy = nil
		}
	case 12:
		vh.RateLimits = []*routev3.RateLimit{{}} // not honoured
	default:
		m.VirtualHosts[at] = weighted(int(where), uint32(n%100))
	}
}
