// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package redirect

import (
	"fmt"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/netio/netns"
)

// Apply fails: capture needs Linux.
func (r Rules) Apply(netns.Namespace) error {
	return fmt.Errorf("redirect: transparent capture needs Linux: %w; use explicit proxies here", netio.ErrUnsupported)
}

// Remove has nothing to remove.
func (r Rules) Remove(netns.Namespace) error { return nil }
