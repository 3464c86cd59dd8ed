// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/secrets"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// A builder makes values of resources. What it makes depends on the resource
// alone: other resources are held by reference, whether they exist yet or not.
type builder struct {
	cfg      *Config
	keeper   *secrets.Keeper
	routeRef func(name string) *RouteRef
}

// inline reads and compiles a route configuration that came inside another resource.
func (b *builder) inline(m *routev3.RouteConfiguration) (*RouteTable, error) {
	t, err := b.reader().Table(m)
	if err != nil {
		return nil, err
	}
	return b.resolve(t, hashOf(m), "")
}

func (b *builder) reader() decode.Routes {
	return decode.Routes{Registry: b.cfg.Registry, Read: b.cfg.ReadFile}
}

// resolve resolves the names in a table.
func (b *builder) resolve(t *decode.Table, hash uint64, version string) (*RouteTable, error) {
	var err error
	out := &RouteTable{
		Table: t.Table, Settings: t.Settings, Hash: hash, Version: version,
		Refs:    make([]*upstream.Ref, len(t.Clusters())),
		Formats: make([]*accesslog.Format, len(t.Formats())),
	}
	for i, name := range t.Clusters() {
		out.Refs[i] = b.cfg.Clusters.Ref(name)
	}
	for i, f := range t.Formats() {
		if out.Formats[i], err = accesslog.Compile(f, b.cfg.Formats); err != nil {
			return nil, fmt.Errorf("value %q: %w", f, err)
		}
	}
	return out, nil
}

// hashOf is equal for equal messages, in whatever order their maps came.
func hashOf(m proto.Message) uint64 {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return 0 // not reached: the message came from the wire
	}
	return xxhash.Sum64(b)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
