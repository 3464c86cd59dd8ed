// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// With flush_access_log_on_connected a connection is logged when its upstream is
// there, too.
func TestConnectionsAreLoggedWhenTheyBegin(t *testing.T) {
	for asked, want := range map[bool]string{false: "TcpConnectionEnd\n", true: "TcpUpstreamConnected\nTcpConnectionEnd\n"} {
		path := filepath.Join(t.TempDir(), "log")
		files := accesslog.NewFiles(time.Millisecond)
		c := newConnLog(nil, files, accesslog.Options{}, slog.New(slog.DiscardHandler))
		chain := &config.FilterChain{TCP: &config.TCP{
			AccessLogs: []config.AccessLog{{Path: path, Text: "%ACCESS_LOG_TYPE%\n"}}, LogOnConnect: asked,
		}}
		x := &filter.Exchange{Conn: &filter.Conn{}, Start: time.Now()}
		c.Opened(x, chain)
		c.Closed(x, chain)
		files.Close()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("asked %v: %q, %v; want %q", asked, got, err, want)
		}
	}
}
