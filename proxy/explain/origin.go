// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"regexp"
	"strings"
)

// origins takes a provenance text of proxy/config apart: objects joined by "; ".
func origins(source string) []string {
	if source == "" {
		return nil
	}
	return strings.Split(source, "; ")
}

// policyName is how Istio's control plane, and ours, name the policies of RBAC.
var policyName = regexp.MustCompile(`^ns\[([^\]]+)\]-policy\[([^\]]+)\]-rule\[(\d+)\]$`)

// policyOrigins names the object that an RBAC policy was made from. RBAC has no
// room for provenance but the name.
func policyOrigins(name, source string) []string {
	if source != "" {
		return origins(source)
	}
	m := policyName.FindStringSubmatch(name)
	if m == nil {
		return nil
	}
	return []string{"AuthorizationPolicy/" + m[1] + "/" + m[2] + " spec.rules[" + m[3] + "]"}
}
