// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package flags is what our programs' command lines have in common: the values
// that flags can have, and the flags of a proxy, which two programs run.
//
//	flags.go    addresses, ports, labels, log levels
//	proxy.go    Proxy: flags to proxy.Config
//	process.go  Process: cores and profiles; NameProcess
package flags

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/telemetry/logs"
)

// off is how an address is said to be none.
const off = "off"

// An Addr is a flag whose value is IP:PORT, ":PORT" for all addresses, or "off".
type Addr struct{ To *netip.AddrPort }

// String is the value in text.
func (a Addr) String() string {
	if a.To == nil || !a.To.IsValid() {
		return off
	}
	return a.To.String()
}

// Type is shown by --help.
func (Addr) Type() string { return "IP:PORT" }

// Set reads a value.
func (a Addr) Set(s string) (err error) {
	if s == off || s == "" {
		*a.To = netip.AddrPort{}
		return nil
	}
	*a.To, err = parseAddr(s)
	return err
}

func parseAddr(s string) (netip.AddrPort, error) {
	if strings.HasPrefix(s, ":") {
		s = "0.0.0.0" + s
	}
	if rest, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + rest
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("%q is not like 127.0.0.1:15000", s)
	}
	return a, nil
}

// Addrs is a flag that may be given several times; the first replaces the default.
type Addrs struct {
	To  *[]netip.AddrPort
	set bool
}

// String is the values in text.
func (a *Addrs) String() string {
	if a.To == nil {
		return ""
	}
	var out []string
	for _, v := range *a.To {
		out = append(out, v.String())
	}
	return strings.Join(out, ",")
}

// Type is shown by --help.
func (*Addrs) Type() string { return "IP:PORT" }

// Set reads one more value.
func (a *Addrs) Set(s string) error {
	v, err := parseAddr(s)
	if err != nil {
		return err
	}
	if !a.set {
		*a.To, a.set = nil, true
	}
	*a.To = append(*a.To, v)
	return nil
}

// Labels is a flag whose value is KEY=VALUE,…
type Labels struct{ To *mesh.Labels }

// String is the value in text.
func (l Labels) String() string {
	if l.To == nil {
		return ""
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(*l.To)) {
		out = append(out, k+"="+(*l.To)[k])
	}
	return strings.Join(out, ",")
}

// Type is shown by --help.
func (Labels) Type() string { return "KEY=VALUE,…" }

// Set reads a value.
func (l Labels) Set(s string) error {
	out := mesh.Labels{}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		k, v, ok := strings.Cut(part, "=")
		if !ok || k == "" {
			return fmt.Errorf("%q is not like key=value", part)
		}
		out[k] = v
	}
	*l.To = out
	return nil
}

// NewLogs reads levels: one for all, and others for components, as in
// "warning,http=debug".
func NewLogs(w io.Writer, levels string) (*logs.Logs, error) {
	cfg := logs.Config{Level: slog.LevelInfo, Of: map[string]slog.Level{}}
	for part := range strings.SplitSeq(levels, ",") {
		component, text, ok := strings.Cut(part, "=")
		if !ok {
			component, text = "", part
		}
		level, err := logs.ParseLevel(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("--log-level: %w", err)
		}
		if component == "" {
			cfg.Level = level
		} else {
			cfg.Of[component] = level
		}
	}
	return logs.New(w, cfg), nil
}

// Version is what the build knows of itself: a version, or the revision it was
// built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changes"
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + changed
}
