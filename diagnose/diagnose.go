// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package diagnose answers what an operator asks of a running mesh. It reads and
// changes nothing.
//
//	diagnose.go     Mesh: where to ask
//	control.go      what the control plane says: proxies, problems, places
//	proxies.go      which proxies there are, and asking one of them
//	table.go        aligned columns, or JSON
//	status.go       what is wrong anywhere
//	proxystatus.go  what each proxy was sent and made of it
//	dump.go         Envoy's config dump, as far as it is shown
//	listeners.go, routes.go, clusters.go, endpoints.go, secrets.go: one table each
//	explain.go      why a request goes where it goes; both proxies are asked
//	story.go        that, told to people
//
// Proxies are asked over Envoy's own admin pages, so a real Envoy can be asked as
// well as ours; explain alone needs ours.
package diagnose

import (
	"io"
	"net/netip"
)

// A Mesh is where to ask.
type Mesh struct {
	// Monitoring is the control plane's monitoring port, "http://host:port".
	Monitoring string
	// Proxies is the folder with a file for each proxy on this machine.
	Proxies string
	// Admin, if valid, is the one proxy to ask, whatever it is called.
	Admin netip.AddrPort
	// JSON asks for JSON in the place of tables.
	JSON bool
	Out  io.Writer
}
