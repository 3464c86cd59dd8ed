// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi

import (
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source"
)

type telemetryObject = *source.Object[*source.Telemetry]

// accessLog compiles what a Telemetry says about access logs; nil if it says nothing.
func (p compiler) accessLog(k source.Key, o telemetryObject) *intent.LogRule {
	if len(o.Spec.AccessLogging) == 0 {
		return nil
	}
	return &intent.LogRule{
		Object: k, Origin: source.Origin{Object: k, Field: "spec.accessLogging[0]"},
		Selector: o.Spec.GetSelector().GetMatchLabels(), Disabled: o.Spec.AccessLogging[0].GetDisabled().GetValue(),
	}
}
