// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package envoy shows complete configurations to a real Envoy: a control plane over a folder, an Envoy that connects
// to it as a sidecar or as a gateway, delta and state-of-the-world, and not one resource that it refuses.
//
//	rig.go         Plane: the control plane; Envoy: a real one, in a network namespace of its own
//	envoy_test.go  the sample, Bookinfo's files, and the meshes of the back end's golden files
//	own_test.go    the same meshes, read by our own proxy
//
// Each Envoy lives in a network namespace, so that it can open the ports that it has in a pod. That takes root.
package envoy
