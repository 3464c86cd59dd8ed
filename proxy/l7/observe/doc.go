// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package observe tells of exchanges when they are over.
//
//	logs.go      Logs: access logs, ready for use; also for connections that are not HTTP
//	managers.go  Managers: Envoy's http.<stat_prefix> statistics
//	tracing.go   Tracers: spans with Envoy's tags, over OTLP
package observe
