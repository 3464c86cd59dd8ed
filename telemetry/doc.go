// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package telemetry keeps numbers and shows them as Envoy does.
//
//	name.go      how a metric is named in /stats and for Prometheus
//	metric.go    Counter, Gauge, Histogram: what is counted where
//	registry.go  Registry: who counts what; Gather
//	format.go    text, JSON and Prometheus exposition of what was gathered
//
// Logs of what passed are in telemetry/accesslog, traces in telemetry/trace, the
// program's own messages in telemetry/logs.
//
// Metrics are registered when configuration is compiled and then used without
// look-up; what already keeps its own counters registers a collector instead,
// which is asked at each scrape.
package telemetry
