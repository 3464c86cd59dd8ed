// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package local

import (
	"context"
	"errors"
	"net/netip"
	"syscall"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/netio/freeport"
	"github.com/meltemi/meltemi/netio/netns"
)

// captured needs Linux; nothing of it is ever reached elsewhere.
type captured struct {
	explicit
	subnet netip.Prefix
	hub    netns.Namespace
}

func allowLowPorts(*syscall.SysProcAttr) {}

func canCapture() error { return errors.New("not Linux") }

func newCaptured(context.Context, *made.Journal, folder, *freeport.Pool, string) (*captured, error) {
	return nil, netio.ErrUnsupported
}

func rejoin(folder, Mesh) (*captured, error) { return nil, netio.ErrUnsupported }

func (c *captured) share(*made.Journal) error { return netio.ErrUnsupported }
func (c *captured) host() netip.Addr          { return netip.Addr{} }
func (c *captured) writeOverlay(string) error { return netio.ErrUnsupported }

func (u *up) runResolver(context.Context) error { return netio.ErrUnsupported }
