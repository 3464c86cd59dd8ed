// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package stock holds the filters that the proxy brings along, one file each;
// table.go lists them all.
//
//	rbac.go          who may pass
//	fault.go         delays and aborts on purpose
//	cors.go          cross-origin requests
//	peermetadata.go  tells who we are, learns who the other is
//	istiostats.go    the istio_* metrics; labels.go, series.go, tcpstats.go
//	marker.go        filters that only say something about the path: router, alpn; grpc_stats, which has messages counted
//
// Configurations are plain values that package config fills from xDS. Filters
// with settings per route document their type: it is the Value of filter.Setting.
package stock
