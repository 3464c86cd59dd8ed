// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"log/slog"
	"sync"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l4"
	"github.com/meltemi/meltemi/proxy/l7"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// connLog logs connections that are not HTTP, or were refused before they could be.
type connLog struct {
	files   *accesslog.Files
	formats accesslog.Options
	log     *slog.Logger

	mu   sync.Mutex
	logs map[*config.FilterChain]*l7.Logs
}

var _ l4.Observer = (*connLog)(nil)

func newConnLog(files *accesslog.Files, formats accesslog.Options, log *slog.Logger) *connLog {
	return &connLog{files: files, formats: formats, log: log, logs: make(map[*config.FilterChain]*l7.Logs)}
}

// Opened logs a connection whose upstream is there, if that is asked for.
func (c *connLog) Opened(x *filter.Exchange, chain *config.FilterChain) {
	if chain.TCP != nil && chain.TCP.LogOnConnect {
		var record accesslog.Record
		c.logsOf(chain).LogAs(x, &record, "TcpUpstreamConnected")
	}
}

// Closed logs a connection's end.
func (c *connLog) Closed(x *filter.Exchange, chain *config.FilterChain) {
	if len(accessLogs(chain)) == 0 {
		return
	}
	var record accesslog.Record
	c.logsOf(chain).LogAs(x, &record, "TcpConnectionEnd")
}

// accessLogs are where a chain's connections are logged.
func accessLogs(chain *config.FilterChain) []config.AccessLog {
	switch {
	case chain.TCP != nil:
		return chain.TCP.AccessLogs
	case chain.HTTP != nil:
		return chain.HTTP.AccessLogs
	}
	return nil
}

// logsOf returns the compiled access logs of a chain.
func (c *connLog) logsOf(chain *config.FilterChain) *l7.Logs {
	c.mu.Lock()
	defer c.mu.Unlock()
	logs := c.logs[chain]
	if logs == nil {
		var err error
		if logs, err = l7.NewLogs(accessLogs(chain), c.files, c.formats); err != nil {
			c.log.Error("an access log cannot be written", "error", err)
			logs = &l7.Logs{}
		}
		if len(c.logs) > maxConnLogs {
			clear(c.logs)
		}
		c.logs[chain] = logs
	}
	return logs
}

// maxConnLogs bounds how many chains' compiled logs are remembered.
const maxConnLogs = 4096
