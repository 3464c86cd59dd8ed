// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package workload is istio.workload, generated from workload.proto: what node
// proxies are told of workloads and services. Read Address first; a resource
// of the workload API holds one.
package workload
