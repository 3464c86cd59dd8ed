// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package check proves that a mesh with the sample does what the sample's configuration says, by calling it as
// anybody could.
//
//	check.go     the list of checks, and how they are run and told
//	traffic.go   checks of what requests meet: routes, weights, faults, policies, changes
//	security.go  checks of what is on the wire: mutual TLS, and nothing else
package check

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/meltemi/meltemi/local/watch"
)

// A Mesh is what is checked.
type Mesh struct {
	Page    string // base URL of the application, through the gateway
	Folder  string // configuration, which a check may change
	Members []Member
	Roots   *x509.CertPool // that members' certificates chain to
	Look    func(ctx context.Context) watch.Picture

	client *http.Client
}

// A Member is a workload of the mesh.
type Member struct {
	ID       string
	Service  string         // empty for the gateway
	Identity string         // SPIFFE
	Inbound  netip.AddrPort // where its proxy takes callers; invalid for the gateway
	Alive    func(ctx context.Context) error
}

// ErrFailed is wrapped by the error of a Run in which a check failed.
var ErrFailed = errors.New("check failed")

const (
	eachLimit = 20 * time.Second
	allLimit  = 45 * time.Second // with starting and taking down, a minute
)

// checks are in the order in which a reader would ask. Later ones do not rely on earlier ones.
var checks = []struct {
	name string
	run  func(ctx context.Context, m *Mesh) (detail string, err error)
}{
	{"members", members},
	{"page", page},
	{"weights", weights},
	{"header", header},
	{"fault", fault},
	{"authorization", authorization},
	{"mutual-tls", mutualTLS},
	{"plaintext-refused", plaintextRefused},
	{"certificates", certificates},
	{"metrics", metrics},
	{"change", change},
	{"configuration", configuration},
	{"members-to-the-end", members}, // nobody died meanwhile
}

// Run makes all checks, each told on a line of out: "ok   NAME  detail" or "FAIL NAME  detail".
func Run(ctx context.Context, m Mesh, out io.Writer) error {
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, allLimit)
	defer cancel()
	m.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer m.client.CloseIdleConnections()
	var failed []string
	for _, c := range checks {
		each, cancel := context.WithTimeout(ctx, eachLimit)
		detail, err := c.run(each, &m)
		cancel()
		if asked.Err() != nil {
			return asked.Err() // what fails because of that says nothing
		}
		word := "ok  "
		if err != nil {
			word, detail = "FAIL", strings.ReplaceAll(err.Error(), "\n", "; ")
			failed = append(failed, c.name)
		}
		if _, err := fmt.Fprintf(out, "%s %-18s %s\n", word, c.name, detail); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%w: %d of %d: %v", ErrFailed, len(failed), len(checks), failed)
	}
	return nil
}

// configuration asks whether anything is refused. What is would not be checked: the last good version of it is in force, or nothing.
func configuration(ctx context.Context, m *Mesh) (string, error) {
	now := m.Look(ctx)
	for tick := time.NewTicker(50 * time.Millisecond); now.Control != "" && ctx.Err() == nil; now = m.Look(ctx) {
		<-tick.C
	}
	if now.Control != "" {
		return "", errors.New(now.Control)
	}
	var refused []error
	for _, p := range now.Problems {
		if p.Severity == "error" {
			refused = append(refused, errors.New(p.String()))
		}
	}
	return "nothing of it is refused", errors.Join(refused...)
}

// members asks everybody whether they are there.
func members(ctx context.Context, m *Mesh) (string, error) {
	var errs []error
	for _, x := range m.Members {
		if err := x.Alive(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", x.ID, err))
		}
	}
	return fmt.Sprintf("%d proxies are ready", len(m.Members)), errors.Join(errs...)
}
