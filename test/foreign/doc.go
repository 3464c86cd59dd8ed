// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package foreign holds tests of our proxy under a control plane that others
// wrote: go-control-plane's snapshot cache and its stock server, in delta and in
// state of the world, with nothing of Istio's about it.
//
//	rig_test.go      the control plane, the proxy, resources as YAML
//	changes_test.go  resources added, changed and removed under load
//	tls_test.go      certificates that it hands out
//	refusal_test.go  bad resources among good ones
package foreign
