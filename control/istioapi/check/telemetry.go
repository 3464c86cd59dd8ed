// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"github.com/meltemi/meltemi/control/source"
	telemetry "istio.io/api/telemetry/v1alpha1"
)

// accessLogProvider is the only provider there is: the proxy's own log.
const accessLogProvider = "envoy"

// telemetry checks a Telemetry. What it can do so far is to switch access logs on and off.
func (c *checker) telemetry(o *source.Object[*source.Telemetry]) {
	s := o.Spec
	c.selector("spec.selector.matchLabels", s.GetSelector().GetMatchLabels())
	c.refuse("spec", map[string]bool{
		"targetRef": s.TargetRef != nil, "targetRefs": len(s.TargetRefs) > 0,
		"tracing": len(s.Tracing) > 0, "metrics": len(s.Metrics) > 0,
	})
	for i, l := range s.AccessLogging {
		path := at("spec.accessLogging[%d]", i)
		if l == nil {
			c.errorf(path, "is empty")
			continue
		}
		if i > 0 {
			c.errorf(path, "more than one entry is not supported yet")
		}
		c.refuse(path, map[string]bool{
			"filter": l.Filter != nil,
			"match":  l.Match.GetMode() != telemetry.WorkloadMode_CLIENT_AND_SERVER,
		})
		for j, p := range l.Providers {
			if p.GetName() != accessLogProvider {
				c.errorf(at("%s.providers[%d].name", path, j), "provider %q is not supported yet; %q is", p.GetName(), accessLogProvider)
			}
		}
	}
}
