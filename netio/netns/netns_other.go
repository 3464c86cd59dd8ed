// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netns

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"

	"github.com/meltemi/meltemi/netio"
)

var errNone = fmt.Errorf("network namespaces need Linux: %w", netio.ErrUnsupported)

func permitted() error { return errNone }

func (n Namespace) do(f func() error) error {
	if n.path == "" {
		return f()
	}
	return errNone
}

// Open fails: there are no namespaces here.
func (n Namespace) Open() (*os.File, error) { return nil, errNone }

// Exists reports false: there are no namespaces here.
func (n Namespace) Exists() bool { return false }

// Create fails: there are no namespaces here.
func Create(string) (Namespace, error) { return Namespace{}, errNone }

// Delete has nothing to delete.
func Delete(string) error { return nil }

// List has nothing to list.
func List(string) ([]string, error) { return nil, nil }

// AddBridge fails: there are no namespaces here.
func (n Namespace) AddBridge(string, ...netip.Prefix) error { return errNone }

// Connect fails: there are no namespaces here.
func Connect(_, _ End) error { return errNone }

// AddAddr fails: there are no namespaces here.
func (n Namespace) AddAddr(string, netip.Prefix) error { return errNone }

// AddDefaultRoute fails: there are no namespaces here.
func (n Namespace) AddDefaultRoute(netip.Addr) error { return errNone }

// DeleteLink has nothing to delete.
func (n Namespace) DeleteLink(string) error { return nil }

// Links has nothing to list.
func (n Namespace) Links(string) ([]string, error) { return nil, nil }

// Start starts cmd where we are; anything else there is not.
func (n Namespace) Start(cmd *exec.Cmd, overlay map[string]string) error {
	if len(overlay) > 0 {
		return errNone
	}
	return n.do(cmd.Start)
}

// Routes has nothing to list.
func (n Namespace) Routes() ([]netip.Prefix, error) { return nil, nil }

// DefaultLinks has nothing to list.
func (n Namespace) DefaultLinks() ([]string, error) { return nil, nil }
