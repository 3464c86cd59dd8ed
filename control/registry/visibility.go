// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
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
