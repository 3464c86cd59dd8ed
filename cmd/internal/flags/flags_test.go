// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/meltemi/meltemi/mesh"
)

func TestValues(t *testing.T) {
	var a netip.AddrPort
	for in, want := range map[string]string{
		"127.0.0.1:1": "127.0.0.1:1", ":15021": "0.0.0.0:15021", "[::1]:2": "[::1]:2", "localhost:3": "127.0.0.1:3", "off": "off", "": "off",
	} {
		if err := (Addr{&a}).Set(in); err != nil || (Addr{&a}).String() != want {
			t.Errorf("%q: %v, %v", in, a, err)
		}
	}
	if err := (Addr{&a}).Set("here"); err == nil {
		t.Error("an address that is none: no error")
	}
	list := []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:15012")}
	v := &Addrs{To: &list}
	for _, in := range []string{"127.0.0.1:1", ":2"} {
		if err := v.Set(in); err != nil {
			t.Fatal(err)
		}
	}
	if v.String() != "127.0.0.1:1,0.0.0.0:2" {
		t.Errorf("the default stays beside what was given: %s", v)
	}
	var l mesh.Labels
	if err := (Labels{&l}).Set("app=x, version=v1,"); err != nil || (Labels{&l}).String() != "app=x,version=v1" {
		t.Errorf("%v, %v", l, err)
	}
	if err := (Labels{&l}).Set("app"); err == nil {
		t.Error("a label without value: no error")
	}
}

func TestLogLevels(t *testing.T) {
	logs, err := NewLogs(io.Discard, "warning,http=debug")
	if err != nil {
		t.Fatal(err)
	}
	logs.Logger("http")
	logs.Logger("xds")
	if l := logs.Levels(); l["http"].String() != "DEBUG" || l["xds"].String() != "WARN" {
		t.Errorf("%v", l)
	}
	if _, err := NewLogs(io.Discard, "http=loud"); err == nil {
		t.Error("a level that is none: no error")
	}
}

func TestProxyFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--name a --static f":                           "",
		"--name a --control c:1 --root r --ip 10.0.0.1": "",
		"--static f":                         "",
		"--name a":                           "--control, or a static",
		"--name a --static f --role ztunnel": "--role ztunnel",
		"--name a --static f --interception TPROXY": "--interception TPROXY",
		"--name a --control c:1":                    "--root", "--control c:1": "--name",
		"--name a --control c:1 --root r":                       "--ip",
		"--name a --control c:1 --root r --ip x":                "--ip x",
		"--name a --static f --log-level x":                     "--log-level",
		"--name a --static f --labels app=x,version=v1":         "",
		"--name a --static f --interception NONE --metrics off": "",
	} {
		fs := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
		configure := Proxy(fs, io.Discard)
		if err := fs.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		cfg, err := configure()
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", args, err, want)
		case strings.Contains(args, "NONE") && (!cfg.Node.NoCapture || cfg.Metrics.IsValid()):
			t.Errorf("%s: %+v", args, cfg)
		}
	}
}
