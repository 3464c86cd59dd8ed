// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/mesh"
)

// Kind is an object's kind as its users write it.
type Kind string

// The kinds that Meltemi reads.
const (
	KindService             Kind = "Service"
	KindWorkload            Kind = "Workload" // a pod, a process, a machine: nobody writes one as YAML
	KindVirtualService      Kind = "VirtualService"
	KindDestinationRule     Kind = "DestinationRule"
	KindGateway             Kind = "Gateway"
	KindServiceEntry        Kind = "ServiceEntry"
	KindWorkloadEntry       Kind = "WorkloadEntry"
	KindSidecar             Kind = "Sidecar"
	KindPeerAuthentication  Kind = "PeerAuthentication"
	KindAuthorizationPolicy Kind = "AuthorizationPolicy"
	KindTelemetry           Kind = "Telemetry"
)

// Key names one object among all sources. The API version is no part of it: a
// VirtualService of v1beta1 is the same object as one of v1.
type Key struct {
	Kind      Kind
	Namespace mesh.Namespace
	Name      string
}

// String is Kind/namespace/name.
func (k Key) String() string {
	return string(k.Kind) + "/" + string(k.Namespace) + "/" + k.Name
}

// Compare orders keys by namespace, then name, then kind. Wherever two objects
// claim the same thing the smaller key wins: the age of an object never decides.
func (k Key) Compare(o Key) int {
	return cmp.Or(
		cmp.Compare(k.Namespace, o.Namespace),
		cmp.Compare(k.Name, o.Name),
		cmp.Compare(k.Kind, o.Kind),
	)
}

// IsZero reports whether k names nothing.
func (k Key) IsZero() bool { return k == Key{} }

// An Object is what somebody wrote: a name and a wish or a fact of type T. It is
// immutable from the moment it is given to a [Sink]. Lines of files are no part
// of it (see [Places]), so that moving an object inside a file changes nothing.
type Object[T any] struct {
	Key
	Labels      mesh.Labels
	Annotations mesh.Labels
	Generation  int64 // as the source counts them; zero if it does not
	StandIn     bool  // nobody wrote it: it is in force because what was written is refused
	Spec        T
}

// An Origin says where in an object something was written, so that every result
// can name its cause. Field is a path such as spec.http[0].match[1].
type Origin struct {
	Object Key
	Field  string
}

// String is Kind/namespace/name field.
func (o Origin) String() string {
	if o.Field == "" {
		return o.Object.String()
	}
	return o.Object.String() + " " + o.Field
}

// At is the origin of a field below o: At("match", 1) of spec.http[0] is spec.http[0].match[1].
// A string is a field's name, an int an index.
func (o Origin) At(path ...any) Origin {
	var b strings.Builder
	b.WriteString(o.Field)
	for _, p := range path {
		switch p := p.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", p)
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p)
		}
	}
	o.Field = b.String()
	return o
}

// A Place is a line of a file. Line counts from one; zero means the file as a whole.
type Place struct {
	File string
	Line int
}

// String is file:line, or nothing for an object that no file holds.
func (p Place) String() string {
	if p.File == "" || p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Places says on which lines of which file an object and its fields stand. It is
// kept beside the object, not in it: a line moves without anybody's wish changing.
type Places struct {
	File   string
	Line   int         // of the document's first line
	Fields []FieldLine // sorted by Field
}

// A FieldLine is the line on which a field is written.
type FieldLine struct {
	Field string
	Line  int
}

// Of is the place of a field, or else of the nearest field around it that is written down.
func (p *Places) Of(field string) Place {
	if p == nil {
		return Place{}
	}
	for field != "" {
		i, ok := slices.BinarySearchFunc(p.Fields, field, func(f FieldLine, want string) int {
			return cmp.Compare(f.Field, want)
		})
		if ok {
			return Place{p.File, p.Fields[i].Line}
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return Place{p.File, p.Line}
}
