// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meltemi/meltemi/control/envoy/emit"
	"github.com/meltemi/meltemi/control/intent"
)

const (
	retryStatuses = "retriable-status-codes"
	reselect      = 5 // how often another endpoint is looked for
)

var retryOn = []string{"connect-failure", "refused-stream", "unavailable", "cancelled", retryStatuses}

// retry says when a request is tried again; nil for never. same: another try may go to the same endpoint, because
// a hash chooses it or there is only one.
func retry(w *intent.Retries, same bool) *routev3.RetryPolicy {
	if w == nil || w.Attempts <= 0 {
		return nil
	}
	on := w.On
	if len(on) == 0 {
		on = retryOn
	}
	p := &routev3.RetryPolicy{NumRetries: wrapperspb.UInt32(uint32(w.Attempts)), HostSelectionRetryMaxAttempts: reselect}
	for _, code := range w.Codes {
		p.RetriableStatusCodes = append(p.RetriableStatusCodes, uint32(code))
	}
	if len(p.RetriableStatusCodes) > 0 && !slices.Contains(on, retryStatuses) {
		on = append(slices.Clone(on), retryStatuses)
	}
	p.RetryOn = strings.Join(on, ",")
	if w.PerTry > 0 {
		p.PerTryTimeout = durationpb.New(w.PerTry)
	}
	if !w.SameHosts && !same {
		p.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: emit.Any(&previoushostsv3.PreviousHostsPredicate{})},
		}}
	}
	if w.RemoteLocalities {
		p.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name:       "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: emit.Any(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2})},
		}
	}
	if w.Backoff > 0 {
		p.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(w.Backoff)}
	}
	return p
}
