// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

type object struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       any      `yaml:"spec"`
}

type metadata struct {
	Name      string            `yaml:"name"`
	Namespace string            `yaml:"namespace"`
	Labels    map[string]string `yaml:"labels,omitempty"`
}

type fields map[string]any

// registration returns m's objects as YAML: a WorkloadEntry, and without capture a Sidecar that says where its
// proxy listens.
func (m *Member) registration() ([]byte, error) {
	labels := m.labels()
	objects := []object{{
		APIVersion: "networking.istio.io/v1",
		Kind:       "WorkloadEntry",
		Metadata:   metadata{Name: m.Name, Namespace: m.Namespace, Labels: labels},
		Spec: fields{
			"address":        m.Addr.String(),
			"labels":         labels,
			"serviceAccount": m.Account,
			"ports":          fields{"http": int(m.Inbound)},
		},
	}}
	if !m.captured() {
		objects = append(objects, m.sidecar())
	}
	return write(fmt.Sprintf("# %s joined the mesh. This file is removed when it leaves.\n", m.ID()), objects)
}

func write(comment string, objects []object) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(comment)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	for _, o := range objects {
		if err := enc.Encode(o); err != nil {
			return nil, fmt.Errorf("registration: %w", err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("registration: %w", err)
	}
	return b.Bytes(), nil
}

// sidecar says where m's proxy listens when nothing is captured.
func (m *Member) sidecar() object {
	return object{
		APIVersion: "networking.istio.io/v1",
		Kind:       "Sidecar",
		Metadata:   metadata{Name: m.Name, Namespace: m.Namespace},
		Spec: fields{
			"workloadSelector": fields{"labels": fields{LabelMember: m.Name}},
			"ingress": []fields{{
				"port":            fields{"number": int(m.Inbound), "name": "http", "protocol": "HTTP"},
				"bind":            m.Addr.String(),
				"captureMode":     "NONE",
				"defaultEndpoint": m.App.String(),
			}},
			"egress": []fields{{"hosts": []string{"*/*"}}},
		},
	}
}

// service declares m's service, for callers to call.
func (m *Member) service() ([]byte, error) {
	return write("# Declared for "+m.ID()+". This file is removed when the last of its members leaves.\n", []object{{
		APIVersion: "v1",
		Kind:       "Service",
		Metadata:   metadata{Name: m.Service, Namespace: m.Namespace},
		Spec: fields{
			"selector": fields{"app": m.Service},
			"ports":    []fields{{"port": int(m.Port), "name": "http", "targetPort": "http"}},
		},
	}})
}

// heads reads kind, name and namespace of each document, and of Gateways their ports. Documents that
// cannot be read are left to the control plane, which says what is wrong with them.
func heads(text []byte) (all []head) {
	for _, doc := range bytes.Split(append([]byte("\n"), text...), []byte("\n---")) {
		var h head
		if yaml.Unmarshal(doc, &h) != nil || h.Kind == "" {
			continue
		}
		if h.Metadata.Namespace == "" {
			h.Metadata.Namespace = "default"
		}
		all = append(all, h)
	}
	return all
}

type head struct {
	Kind     string
	Metadata struct {
		Name, Namespace string
		Labels          map[string]string
	}
	Spec struct {
		Servers []struct {
			Port struct{ Number uint16 }
		}
	}
}
