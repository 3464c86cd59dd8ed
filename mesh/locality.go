// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import "strings"

// Locality is where a workload runs. Empty parts are unknown.
type Locality struct {
	Region, Zone, SubZone string
}

// ParseLocality reads "region/zone/subzone"; missing parts stay empty and what
// follows the third part belongs to it. Without a slash, dots separate, because
// a Kubernetes label cannot hold a slash.
func ParseLocality(s string) Locality {
	sep := "/"
	if !strings.Contains(s, sep) {
		sep = "."
	}
	parts := strings.SplitN(s, sep, 3)
	var l Locality
	for i, to := range []*string{&l.Region, &l.Zone, &l.SubZone} {
		if i < len(parts) {
			*to = parts[i]
		}
	}
	return l
}

// String is "region/zone/subzone" without empty parts at the end.
func (l Locality) String() string {
	return strings.TrimRight(l.Region+"/"+l.Zone+"/"+l.SubZone, "/")
}

// IsZero reports whether nothing is known.
func (l Locality) IsZero() bool { return l == Locality{} }
