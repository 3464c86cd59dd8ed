// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package nds is istio.networking.nds.v1, generated from nds.proto: the name
// table, from which the DNS server of a proxy answers.
package nds
