// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/meltemi/meltemi/xds"
)

// LoadStatic applies the static_resources of an Envoy bootstrap, which is YAML
// or JSON, and returns the snapshot then in force. Other sections of the
// bootstrap do not concern the store, but for dynamic_resources: a file that
// names a control plane is refused. The error names every resource that is.
func (s *Store) LoadStatic(b []byte) (*Snapshot, error) {
	static, err := readStatic(b)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	updates, err := staticUpdates(static)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: static_resources: %w", err)
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	s.mu.Lock()
	var errs []error
	for _, u := range updates {
		for _, r := range s.applyLocked(u, true) {
			errs = append(errs, fmt.Errorf("bootstrap: static_resources: %s %q: %w", shortType(u.TypeURL), r.Name, r.Err))
		}
	}
	s.finishLocked()
	return s.Snapshot(), errors.Join(errs...)
}

func readStatic(b []byte) (*bootstrapv3.Bootstrap_StaticResources, error) {
	j, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, err
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(j, &top); err != nil {
		return nil, err
	}
	for _, key := range [...]string{"dynamic_resources", "dynamicResources"} {
		if _, ok := top[key]; ok {
			return nil, errors.New("dynamic_resources are not read from a file: connect to the control plane instead")
		}
	}
	raw, ok := top["static_resources"]
	if !ok {
		if raw, ok = top["staticResources"]; !ok {
			return nil, errors.New("it has no static_resources")
		}
	}
	m := &bootstrapv3.Bootstrap_StaticResources{}
	if err := protojson.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("static_resources: %w", err)
	}
	return m, nil
}

func staticUpdates(m *bootstrapv3.Bootstrap_StaticResources) ([]xds.Update, error) {
	secrets := xds.Update{TypeURL: TypeSecret}
	clusters := xds.Update{TypeURL: TypeCluster}
	listeners := xds.Update{TypeURL: TypeListener}
	add := func(u *xds.Update, name string, m proto.Message) error {
		a, err := anypb.New(m)
		u.Resources = append(u.Resources, xds.Resource{Name: name, Body: a})
		return err
	}
	for _, r := range m.GetSecrets() {
		if err := add(&secrets, r.GetName(), r); err != nil {
			return nil, err
		}
	}
	for _, r := range m.GetClusters() {
		if err := add(&clusters, r.GetName(), r); err != nil {
			return nil, err
		}
	}
	for _, r := range m.GetListeners() {
		if err := add(&listeners, listenerName(r), r); err != nil {
			return nil, err
		}
	}
	return []xds.Update{secrets, clusters, listeners}, nil
}

// shortType is the last word of a type URL.
func shortType(url string) string {
	for i := len(url) - 1; i >= 0; i-- {
		if url[i] == '.' {
			return url[i+1:]
		}
	}
	return url
}
