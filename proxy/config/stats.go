// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import "time"

// Stats is the settings of istio.stats (stats.PluginConfig).
type Stats struct {
	// Waypoint reports as a waypoint does (reporter SERVER_GATEWAY).
	Waypoint       bool
	NoHostFallback bool          // disable_host_header_fallback
	TCPInterval    time.Duration // tcp_reporting_duration; default 5 s
	Metrics        []Metric
}

// A Metric changes one metric, or all if Name is "".
type Metric struct {
	Name       string
	Drop       bool
	Dimensions map[string]string // tag to CEL expression
	Remove     []string          // tags
}
