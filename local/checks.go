// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/meltemi/meltemi/local/check"
)

// runChecks proves the mesh.
func (u *up) runChecks(ctx context.Context) error {
	pem, err := os.ReadFile(filepath.Join(u.mesh.Runtime, rootFile))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return errors.New("the root certificate is unreadable")
	}
	m := check.Mesh{Page: u.mesh.Page, Folder: u.cfg.Paths[0], Roots: roots, Look: u.watcher.Look}
	for _, x := range u.units {
		cm := check.Member{ID: x.m.ID(), Service: x.m.Service, Identity: x.m.identity().String(), Alive: x.alive}
		if !x.m.Gateway {
			cm.Inbound = netip.AddrPortFrom(x.m.Addr, x.m.Inbound)
		}
		m.Members = append(m.Members, cm)
	}
	return check.Run(ctx, m, u.cfg.Out)
}

// alive says what is wrong with the member, if anything.
func (u *unit) alive(ctx context.Context) error {
	proxy, app := u.processes()
	if !proxy.alive() {
		return fmt.Errorf("its proxy has ended: %s", proxy.ended())
	}
	if app != nil && !app.alive() {
		return fmt.Errorf("it has ended: %s", app.ended())
	}
	client := &http.Client{
		Transport: &http.Transport{DialContext: u.place.reach(u.m), DisableKeepAlives: true},
		Timeout:   2 * time.Second,
	}
	if err := getOK(ctx, client, u.adminURL()+"/ready"); err != nil {
		return fmt.Errorf("its proxy is not ready: %w", err)
	}
	return nil
}
