// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"maps"
	"slices"

	"github.com/meltemi/meltemi/mesh"
)

// A Visibility says to clients of which namespaces something exists (exportTo).
// The zero value is visible to all.
type Visibility struct {
	None       bool             // "~"
	Namespaces []mesh.Namespace // sorted; empty: all. "." is already replaced by the owner's namespace
}

// To reports whether clients in ns see it.
func (v Visibility) To(ns mesh.Namespace) bool {
	if v.None {
		return false
	}
	return len(v.Namespaces) == 0 || slices.Contains(v.Namespaces, ns)
}

// All reports whether clients of every namespace see it.
func (v Visibility) All() bool { return !v.None && len(v.Namespaces) == 0 }

// ParseExportTo is the visibility that exportTo gives an object of namespace own:
// "*" is everywhere, "." its own namespace, "~" nowhere; anything else names a namespace. Empty means everywhere.
func ParseExportTo(exportTo []string, own mesh.Namespace) Visibility {
	var v Visibility
	for _, e := range exportTo {
		switch e {
		case "*":
			return Visibility{}
		case ".":
			v.Namespaces = append(v.Namespaces, own)
		case "~":
			v.None = true
		default:
			v.Namespaces = append(v.Namespaces, mesh.Namespace(e))
		}
	}
	if len(v.Namespaces) > 0 {
		v.None = false
	}
	slices.Sort(v.Namespaces)
	v.Namespaces = slices.Compact(v.Namespaces)
	return v
}

// Clients are the clients of one namespace, or everybody's. It is an index entry under which
// things are found by who may see them.
type Clients struct {
	Namespace mesh.Namespace
	All       bool
}

// Clients are the entries under which something of this visibility is found.
func (v Visibility) Clients() []Clients {
	if v.None {
		return nil
	}
	if v.All() {
		return []Clients{{All: true}}
	}
	to := make([]Clients, 0, len(v.Namespaces))
	for _, ns := range v.Namespaces {
		to = append(to, Clients{Namespace: ns})
	}
	return to
}

// A Label is one label of the objects of a namespace, as an index entry.
type Label struct {
	Namespace  mesh.Namespace
	Key, Value string
}

// Telling is the label of a selector under which it is indexed: the one that is likely to tell most, so that few
// selectors and few workloads share it. It is zero but for the namespace if the selector is empty.
func Telling(ns mesh.Namespace, selector mesh.Labels) Label {
	if len(selector) == 0 {
		return Label{Namespace: ns}
	}
	for _, k := range []string{mesh.LabelApp, mesh.LabelKubeName, "app.kubernetes.io/instance", "k8s-app", "name"} {
		if v, ok := selector[k]; ok {
			return Label{ns, k, v}
		}
	}
	k := slices.Min(slices.Collect(maps.Keys(selector)))
	return Label{ns, k, selector[k]}
}
