// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netio

import "net/netip"

func portOwner(string, netip.AddrPort) (Owner, bool) { return Owner{}, false }
