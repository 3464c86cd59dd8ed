// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package ondemand runs a sidecar that takes its configuration on demand, under
// a real control plane with a large mesh, with its workload's traffic captured
// by the kernel. The test runs itself once more inside a network namespace of
// its own, for which it needs root:
//
//	go test -v ./test/ondemand
package ondemand
