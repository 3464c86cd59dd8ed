// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/xds"
)

func tcpListener(t *testing.T, name string, port int) xds.Resource {
	t.Helper()
	_, r := resource(t, map[string]any{
		"@type": "listener", "name": name,
		"address": map[string]any{"socket_address": map[string]any{"address": "10.0.0.1", "port_value": port}},
		"filter_chains": []any{map[string]any{"filters": []any{map[string]any{"name": "tcp", "typed_config": map[string]any{
			"@type": strict.Prefix + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "x", "cluster": "c",
		}}}}},
	})
	return r
}

// The address of a listener that goes is free for one that comes in the same update: nobody sends that one again.
func TestAListenerMayBeRenamed(t *testing.T) {
	w := newWorld(t)
	named := func(name string) xds.Resource { return tcpListener(t, name, 80) }
	for _, u := range []xds.Update{
		{TypeURL: TypeListener, Resources: []xds.Resource{named("old")}},
		{TypeURL: TypeListener, Resources: []xds.Resource{named("new")}, Removed: []string{"old"}},
	} {
		if rejected := w.Apply(u); len(rejected) > 0 {
			t.Fatal(rejected)
		}
	}
	if ls := w.Snapshot().Listeners; len(ls) != 1 || ls[0].Name != "new" {
		t.Errorf("%d listeners", len(ls))
	}
	if rejected := w.Apply(xds.Update{TypeURL: TypeListener, Resources: []xds.Resource{named("another")}}); len(rejected) != 1 {
		t.Errorf("an address that is taken: %v", rejected)
	}
}

// Whether an address is taken is asked of what will be after the whole update: listeners may change places, in any order.
func TestListenersMayChangePlaces(t *testing.T) {
	invalid := func(name string) xds.Resource {
		_, r := resource(t, map[string]any{"@type": "listener", "name": name, "address": map[string]any{"socket_address": map[string]any{"address": "10.0.0.1", "port_value": 9}}})
		return r
	}
	at := func(name string, port int) xds.Resource { return tcpListener(t, name, port) }
	for name, c := range map[string]struct {
		update  []xds.Resource // to a on port 1, b on 2 and c on 3
		refused string
		want    string
	}{
		"a swap":                           {[]xds.Resource{at("a", 2), at("b", 1)}, "", "a:2 b:1 c:3"},
		"a circle":                         {[]xds.Resource{at("a", 2), at("b", 3), at("c", 1)}, "", "a:2 b:3 c:1"},
		"the heir first":                   {[]xds.Resource{at("a", 2), at("b", 4)}, "", "a:2 b:4 c:3"},
		"a new heir first":                 {[]xds.Resource{at("d", 2), at("b", 4)}, "", "a:1 b:4 c:3 d:2"},
		"of two that come the later":       {[]xds.Resource{at("a", 4), at("b", 4)}, "b", "a:4 b:2 c:3"},
		"and who stays before both":        {[]xds.Resource{at("a", 3), at("d", 3)}, "a d", "a:1 b:2 c:3"},
		"who goes back takes others along": {[]xds.Resource{at("a", 2), at("b", 3), at("d", 1)}, "b a d", "a:1 b:2 c:3"},
		"one that is refused stays":        {[]xds.Resource{at("a", 2), invalid("b")}, "b a", "a:1 b:2 c:3"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if r := w.Apply(xds.Update{TypeURL: TypeListener, Resources: []xds.Resource{at("a", 1), at("b", 2), at("c", 3)}}); len(r) > 0 {
				t.Fatal(r)
			}
			var refused, got []string
			for _, r := range w.Apply(xds.Update{TypeURL: TypeListener, Resources: c.update}) {
				refused = append(refused, r.Name)
			}
			for _, l := range w.Snapshot().Listeners {
				got = append(got, fmt.Sprintf("%s:%d", l.Name, l.Addrs[0].IP.Port()))
			}
			if strings.Join(refused, " ") != c.refused || strings.Join(got, " ") != c.want {
				t.Errorf("refused %q, then %q; want %q, %q", refused, got, c.refused, c.want)
			}
			for _, name := range refused {
				if e := w.listeners[name]; e.failed == nil || e.failed.raw == nil {
					t.Errorf("why %s is refused is not noted", name)
				}
			}
		})
	}
}

// A listener that waits for its routes has left its address for another; it cannot simply come back.
func TestAListenerCannotComeBackToWhatIsTaken(t *testing.T) {
	w := newWorld(t)
	waits := func() xds.Resource {
		_, r := resource(t, map[string]any{
			"@type": "listener", "name": "a",
			"address": map[string]any{"socket_address": map[string]any{"address": "10.0.0.1", "port_value": 2}},
			"filter_chains": []any{map[string]any{"filters": []any{map[string]any{"name": "hcm", "typed_config": map[string]any{
				"@type":       strict.Prefix + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
				"stat_prefix": "x", "rds": map[string]any{"route_config_name": "late", "config_source": map[string]any{"ads": map[string]any{}, "initial_fetch_timeout": "0s"}},
				"http_filters": []any{map[string]any{"name": "router", "typed_config": map[string]any{"@type": strict.Prefix + "envoy.extensions.filters.http.router.v3.Router"}}},
			}}}}},
		})
		return r
	}()
	home := tcpListener(t, "a", 1)
	for _, c := range []struct {
		r       xds.Resource
		refused bool
	}{{home, false}, {waits, false}, {tcpListener(t, "b", 1), false}, {home, true}} {
		if r := w.Apply(xds.Update{TypeURL: TypeListener, Resources: []xds.Resource{c.r}}); (len(r) > 0) != c.refused {
			t.Errorf("%v", r)
		}
	}
	if e := w.listeners["a"]; e.warming == nil || e.warming.Addrs[0].IP.Port() != 2 {
		t.Error("what was to come must still come")
	}
}
