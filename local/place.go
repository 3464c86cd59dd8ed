// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio/freeport"
)

// A place is where members live.
type place interface {
	// settle gives m its addresses and makes what it needs; all of it is recorded in j.
	settle(ctx context.Context, j *made.Journal, m *Member) error
	// proxy and app complete the commands of m's two processes.
	proxy(m *Member, c *command)
	app(m *Member, c *command)
	// reach returns how to open a connection to addr as seen from where m's proxy runs.
	reach(m *Member) func(ctx context.Context, network, addr string) (net.Conn, error)
	// resolver is where proxies ask for names outside of the mesh; "" if applications ask by themselves.
	resolver() string
}

// explicit is a place without capture: all on loopback, each with ports of its own.
type explicit struct{ ports *freeport.Pool }

var _ place = explicit{}

func (e explicit) settle(ctx context.Context, _ *made.Journal, m *Member) error {
	m.Addr = loopback(0).Addr()
	wanted := []*uint16{&m.Admin}
	app := m.App.Port()
	if !m.Gateway {
		wanted = append(wanted, &m.Inbound, &m.HTTPProxy)
		if app == 0 {
			wanted = append(wanted, &app)
		}
	}
	for _, p := range wanted {
		var err error
		if *p, err = e.ports.Give(); err != nil {
			return fmt.Errorf("%s: %w", m.ID(), err)
		}
	}
	m.App = netip.AddrPortFrom(m.Addr, app)
	return nil
}

func (explicit) resolver() string { return "" }

func (explicit) proxy(*Member, *command) {}

func (explicit) app(m *Member, c *command) { c.env = append(c.env, proxyEnv(m)...) }

func (explicit) reach(*Member) func(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext
}

// take reserves a name among all Ups and Runs of the folder; false means that somebody has it.
func (f folder) take(j *made.Journal, name string) (bool, error) {
	path := filepath.Join(f.taken(), name)
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	}
	t := made.Thing{Kind: made.File, Name: path}
	if err := j.Record(t); err != nil {
		return false, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return false, j.Forget(t)
	}
	if err != nil {
		return false, fmt.Errorf("state folder: %w", err)
	}
	return true, file.Close()
}
