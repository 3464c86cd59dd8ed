// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"github.com/meltemi/meltemi/proxy/config/strict"
	"github.com/meltemi/meltemi/proxy/route"
)

// Envoy's defaults for back-off.
const (
	backoffBase   = 25 * time.Millisecond
	backoffFactor = 10
)

// Retry reads a RetryPolicy; nil for nil.
func Retry(m *routev3.RetryPolicy) (*route.Retry, error) {
	if m == nil {
		return nil, nil
	}
	p := &route.Retry{
		Count: 1, PerTry: m.GetPerTryTimeout().AsDuration(), PerTryIdle: m.GetPerTryIdleTimeout().AsDuration(),
		Codes: m.GetRetriableStatusCodes(), MaxReselect: int(m.GetHostSelectionRetryMaxAttempts()),
		Base: backoffBase, Max: backoffFactor * backoffBase,
	}
	if n := m.GetNumRetries(); n != nil {
		p.Count = n.GetValue()
	}
	var unknown string
	if p.On, unknown = route.ParseRetryOn(m.GetRetryOn()); unknown != "" {
		return nil, fmt.Errorf("retry_on: %q is not supported", unknown)
	}
	var err error
	if p.Headers, err = Headers(m.GetRetriableHeaders()); err != nil {
		return nil, fmt.Errorf("retriable_headers%w", err)
	}
	if p.Requests, err = Headers(m.GetRetriableRequestHeaders()); err != nil {
		return nil, fmt.Errorf("retriable_request_headers%w", err)
	}
	if b := m.GetRetryBackOff(); b != nil {
		p.Base = b.GetBaseInterval().AsDuration()
		p.Max = backoffFactor * p.Base
		if b.GetMaxInterval() != nil {
			p.Max = b.GetMaxInterval().AsDuration()
		}
		if p.Base <= 0 || p.Max < p.Base {
			return nil, fmt.Errorf("retry_back_off: base_interval %v and max_interval %v do not fit", p.Base, p.Max)
		}
	}
	for i, h := range m.GetRetryHostPredicate() {
		var prev previoushostsv3.PreviousHostsPredicate
		if h.GetTypedConfig() != nil {
			if err := strict.Unmarshal(h.GetTypedConfig(), &prev); err != nil {
				return nil, fmt.Errorf("retry_host_predicate[%d]: %w", i, err)
			}
		} else if h.GetName() != "envoy.retry_host_predicates.previous_hosts" {
			return nil, fmt.Errorf("retry_host_predicate[%d]: %q is not supported", i, h.GetName())
		}
		p.PreviousHosts = true
	}
	if rp := m.GetRetryPriority(); rp != nil {
		var prev previousprioritiesv3.PreviousPrioritiesConfig
		if err := strict.Unmarshal(rp.GetTypedConfig(), &prev); err != nil {
			return nil, fmt.Errorf("retry_priority: %w", err)
		}
		p.PreviousPriorities = uint32(prev.GetUpdateFrequency())
	}
	return p, nil
}
