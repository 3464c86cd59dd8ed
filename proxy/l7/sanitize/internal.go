// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sanitize

import "github.com/meltemi/meltemi/message"

// envoyPrefix begins the names of all fields below.
const envoyPrefix = "x-envoy-"

// ours are fields, without the prefix, by which one hop of the mesh tells the
// next what to do. Only internal requests may have them.
var ours = []string{
	"retry-on", "retry-grpc-on", "max-retries", "retriable-status-codes", "retriable-header-names",
	"upstream-alt-stat-name", "upstream-rq-timeout-ms", "upstream-rq-per-try-timeout-ms", "upstream-rq-timeout-alt-response",
	"upstream-stream-duration-ms", "expected-rq-timeout-ms", "hedge-on-per-try-timeout",
	"force-trace", "ip-tags", "original-url", "internal",
}

// oneHop are those of them that are said to one hop alone, and end there.
var oneHop = []string{
	"retry-on", "retry-grpc-on", "max-retries", "retriable-status-codes", "retriable-header-names",
	"upstream-alt-stat-name", "upstream-rq-per-try-timeout-ms", "upstream-rq-timeout-alt-response", "upstream-stream-duration-ms",
	"hedge-on-per-try-timeout",
}

// OneHop says whether a field of a request, which may have it, is not for the next hop.
func OneHop(f message.Field) bool { return listed(f.Name, oneHop) }

// edges are fields that the mesh sets for itself and that nobody outside may.
var edges = []string{
	"decorator-operation", "downstream-service-cluster", "downstream-service-node",
	"original-path", "original-host", "attempt-count", "external-address",
}

// clean removes what a request may not bring along. edge: it comes from outside.
func clean(h *message.Header, internal, edge bool) {
	if !hasEnvoy(h) {
		return
	}
	switch {
	case internal:
		h.Delete(internalRequest)
	case edge:
		h.DeleteFunc(func(f message.Field) bool { return listed(f.Name, ours) || listed(f.Name, edges) })
	default:
		h.DeleteFunc(func(f message.Field) bool { return listed(f.Name, ours) })
	}
}

func hasEnvoy(h *message.Header) bool {
	for _, f := range h.Fields() {
		if isEnvoy(f.Name) {
			return true
		}
	}
	return false
}

func isEnvoy(name string) bool {
	return len(name) > len(envoyPrefix) && message.EqualFold(name[:len(envoyPrefix)], envoyPrefix)
}

func listed(name string, list []string) bool {
	if !isEnvoy(name) {
		return false
	}
	name = name[len(envoyPrefix):]
	for _, n := range list {
		if message.EqualFold(name, n) {
			return true
		}
	}
	return false
}
