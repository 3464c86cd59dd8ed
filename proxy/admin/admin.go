// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package admin is the proxy's side door for operators and tools: Envoy's admin
// pages, in Envoy's formats, because tools parse them.
//
//	admin.go     View: what the pages ask of the proxy; the table of pages
//	stats.go     /stats and /stats/prometheus
//	clusters.go  /clusters
//	narrow.go    what of /config_dump is asked for
//	pages.go     the rest: readiness, listeners, logging, drain, quit
package admin

import (
	"encoding/json"
	"net"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/daemon"
	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/telemetry"
	"github.com/meltemi/meltemi/telemetry/logs"
)

// A Proxy is what the pages show and do.
type Proxy interface {
	// Ready says nil when the first configuration is in force.
	Ready() error
	// Draining is true once the proxy asks connections to end.
	Draining() bool
	// ConfigDump is envoy.admin.v3.ConfigDump; endpoints are included on request.
	ConfigDump(endpoints bool) (proto.Message, error)
	// Sockets are the listeners that are open, with where they really listen.
	Sockets() []Socket
	// Certificates describes the workload's own; nil if there is none.
	Certificates() []Certificate
	// Drain stops taking connections and asks the open ones to end.
	Drain(inboundOnly bool)
	// Quit ends the proxy.
	Quit()
	// Explain answers a query in JSON: what would become of a request.
	Explain(query json.RawMessage) (any, error)
}

// A Socket is one open listener.
type Socket struct {
	Name  string
	Addrs []net.Addr
}

// A Certificate is what /certs tells of one.
type Certificate struct {
	Subject, Issuer, Serial, URI string
	NotBefore, NotAfter          time.Time
}

// Config is what the pages draw from.
type Config struct {
	Proxy    Proxy
	Registry *telemetry.Registry
	Clusters *upstream.Set
	Logs     *logs.Logs
	Version  string
	Started  time.Time
}

type pages struct{ Config }

// Register adds the pages to a.
func Register(a *daemon.Admin, cfg Config) {
	p := &pages{cfg}
	for _, e := range []struct {
		method, path, help string
		serve              http.HandlerFunc
	}{
		{"GET", "/ready", "LIVE with 200 when configured, else 503", p.ready},
		{"GET", "/server_info", "version and state", p.serverInfo},
		{"GET", "/stats", "counters; ?usedonly, ?filter=REGEX, ?format=json|prometheus", p.stats},
		{"GET", "/stats/prometheus", "the same for Prometheus", p.prometheus},
		{"GET", "/clusters", "clusters and endpoints; ?format=json", p.clusters},
		{"GET", "/listeners", "open sockets; ?format=json", p.listeners},
		{"GET", "/config_dump", "all configuration; ?include_eds, ?resource=LIST, ?name_regex=REGEX, ?mask=FIELDS", p.configDump},
		{"GET", "/certs", "the workload's certificate", p.certs},
		{"GET", "/memory", "memory in use", p.memory},
		{"GET", "/logging", "log levels", p.logging},
		{"POST", "/logging", "?level=debug, or ?COMPONENT=debug", p.logging},
		{"POST", "/explain", "what would become of a request (JSON)", p.explain},
		{"POST", "/drain_listeners", "?inboundonly; stop taking connections", p.drain},
		{"POST", "/quitquitquit", "end the proxy", p.quit},
	} {
		a.Handle(e.method, e.path, e.help, e.serve)
	}
}

// Metrics adds what scrapers need, and nothing that changes the proxy.
func Metrics(a *daemon.Admin, r *telemetry.Registry) {
	p := &pages{Config{Registry: r}}
	a.Handle("GET", "/stats/prometheus", "metrics", http.HandlerFunc(p.prometheus))
}

// Health adds the readiness page for the outside.
func Health(a *daemon.Admin, proxy Proxy) {
	p := &pages{Config{Proxy: proxy}}
	a.Handle("GET", "/healthz/ready", "200 when configured, else 503", http.HandlerFunc(p.ready))
}
