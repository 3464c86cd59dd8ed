// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"net/netip"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/l7/observe"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// A site is a connection manager's settings, ready for use.
type site struct {
	server *Server
	http   *config.HTTP
	logs   *observe.Logs
	// attempts are the logs of attempts (upstream_log).
	attempts *observe.Logs
	stats    *observe.Manager
	tracer   *observe.Tracer // nil: no tracing
	faults   siteFaults

	// Guarded by Server.mu.
	users int
	left  time.Time
}

// siteFaults are faults that happen often and differ by listener alone.
type siteFaults struct{ noTable, noHost, noRoute *fault.Fault }

func newSite(s *Server, h *config.HTTP) (*site, error) {
	logs, err := observe.NewLogs(h.AccessLogs, s.cfg.Files, s.cfg.Formats)
	if err != nil {
		return nil, err
	}
	attempts, err := observe.NewLogs(h.Router.UpstreamLogs, s.cfg.Files, s.cfg.Formats)
	if err != nil {
		return nil, err
	}
	st := &site{server: s, http: h, logs: logs, attempts: attempts, stats: s.stats.Get(h.StatPrefix)}
	if st.tracer, err = s.tracers.Get(h.Tracing); err != nil {
		return nil, err
	}
	name := h.RouteName
	if name == "" {
		name = h.StatPrefix
	}
	missing := func(hint string) *fault.Fault {
		return &fault.Fault{Side: fault.Client, Kind: fault.NoRoute, Status: 404, Details: "route_not_found", Object: "route table " + name, Hint: hint}
	}
	st.faults.noTable = missing("the control plane has not sent this table yet")
	st.faults.noTable.Side = fault.Mesh
	st.faults.noHost = missing("no virtual host has the request's host among its domains")
	st.faults.noRoute = missing("the virtual host was found, but none of its routes matches the request")
	return st, nil
}

// What who wires the data plane together needs of observe.
type (
	// Logs are compiled access logs; also for connections that are not HTTP.
	Logs = observe.Logs
	// Node is what spans tell of this proxy.
	Node = observe.Node
)

// NewLogs compiles formats and opens files.
func NewLogs(logs []config.AccessLog, files *accesslog.Files, opt accesslog.Options) (*Logs, error) {
	return observe.NewLogs(logs, files, opt)
}

// A Downstream is one request being answered: an exchange on an
// http1.ServerConn, or an http2.ServerStream.
type Downstream interface {
	Read(p []byte) (int, error)
	Trailer() *message.Header
	WriteHead(resp *message.Response, end bool) error
	Write(p []byte) (int, error)
	Flush() error
	Finish(trailer *message.Header) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Abort(code uint32)
	Tunnel() Tunnel
}

// unmapped returns a without an IPv4 address's disguise as IPv6.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
