// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
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

	Annotations map[string]string `yaml:"annotations,omitempty"`
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
			"ports":          fields{portName: int(m.Inbound)},
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
				"port":            fields{"number": int(m.Inbound), "name": portName, "protocol": m.ingressProtocol().String()},
				"bind":            m.Addr.String(),
				"captureMode":     "NONE",
				"defaultEndpoint": m.App.String(),
			}},
			"egress": []fields{{"hosts": []string{"*/*"}}},
		},
	}
}

// portName is what a member's own port is called, whatever it carries, so that Services of all members can name it.
const portName = "http"

// ingressProtocol is what m's own port carries. Callers that are told of their proxy by HTTP_PROXY speak HTTP.
func (m *Member) ingressProtocol() mesh.Protocol {
	if m.Protocol == mesh.Unset {
		return mesh.HTTP
	}
	return m.Protocol
}

// service declares m's service, for callers to call, until somebody writes one.
func (m *Member) service() ([]byte, error) {
	port := fields{"port": int(m.Port), "targetPort": portName}
	if m.Protocol != mesh.Unset {
		port["appProtocol"] = strings.ToLower(m.Protocol.String())
	}
	about := metadata{Name: m.Service, Namespace: m.Namespace, Annotations: map[string]string{source.Yields: "true"}}
	return write("# Declared for "+m.ID()+". This file is removed when the last of its members leaves.\n", []object{{
		APIVersion: "v1",
		Kind:       "Service",
		Metadata:   about,
		Spec:       fields{"selector": fields{"app": m.Service}, "ports": []fields{port}},
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
