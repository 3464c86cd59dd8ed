// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio"
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
type explicit struct{ folder folder }

var _ place = explicit{}

func (e explicit) settle(ctx context.Context, j *made.Journal, m *Member) error {
	m.Addr = loopback(0).Addr()
	wanted := []*uint16{&m.Admin}
	app := m.App.Port()
	if !m.Gateway {
		wanted = append(wanted, &m.Inbound, &m.HTTPProxy)
		if app == 0 {
			wanted = append(wanted, &app)
		}
	}
	if err := freePorts(ctx, j, e.folder, wanted); err != nil {
		return fmt.Errorf("%s: %w", m.ID(), err)
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

// Ports for members lie below those that systems give to outgoing connections, which could otherwise take one
// between our choosing it and its use. Those of one folder lie together, so that another mesh that starts at the
// same time does not, either.
const (
	firstPortGiven = 20000
	portsGiven     = 10000
)

// freePorts fills in ports on loopback that nobody listens on and no other member was given.
func freePorts(ctx context.Context, j *made.Journal, f folder, wanted []*uint16) error {
	start := f.firstPort()
	for _, p := range wanted {
		for i := 0; *p == 0; i++ {
			if i == portsGiven {
				return errors.New("no free port was found on 127.0.0.1")
			}
			port := uint16(firstPortGiven + (start+i)%portsGiven)
			l, err := netio.Listen(ctx, loopback(port), netio.SocketOptions{})
			if err != nil {
				continue
			}
			ok, err := f.take(j, fmt.Sprintf("port-%d", port))
			_ = l.Close()
			if err != nil {
				return err
			}
			if ok {
				*p = port
			}
		}
	}
	return nil
}

// firstPort is where to begin to look for free ports, from firstPortGiven.
func (f folder) firstPort() int {
	h := sha256.Sum256([]byte(f.dir))
	return int(binary.BigEndian.Uint32(h[:])) % portsGiven
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
