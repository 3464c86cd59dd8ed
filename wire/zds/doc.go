// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package zds is istio.workload.zds, generated from zds.proto: the datagrams by
// which the node agent hands pods to the node proxy. Read WorkloadRequest first.
package zds
