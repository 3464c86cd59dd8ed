// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/authz"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l4"
	"github.com/meltemi/meltemi/telemetry/accesslog"
)

// With flush_access_log_on_connected a connection is logged when its upstream is
// there, too.
func TestConnectionsAreLoggedWhenTheyBegin(t *testing.T) {
	for asked, want := range map[bool]string{false: "TcpConnectionEnd\n", true: "TcpUpstreamConnected\nTcpConnectionEnd\n"} {
		path := filepath.Join(t.TempDir(), "log")
		files := accesslog.NewFiles(time.Millisecond)
		c := newConnLog(files, accesslog.Options{}, slog.New(slog.DiscardHandler))
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

// A connection that a policy denies is counted and logged, whichever protocol it was to speak.
func TestDeniedConnectionsAreLogged(t *testing.T) {
	rules, err := authz.Compile(&authz.Config{Action: authz.Allow}, authz.Network)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log")
	to := []config.AccessLog{{Path: path, Text: "%RESPONSE_CODE_DETAILS% %ACCESS_LOG_TYPE% %REQ(:PATH)%\n"}}
	files := accesslog.NewFiles(time.Millisecond)
	p := &Proxy{l4: l4.New(newConnLog(files, accesslog.Options{}, slog.New(slog.DiscardHandler)), &filter.Peers{})}
	denied := []config.NetworkFilter{{RBAC: &config.NetworkRBAC{Rules: rules}}}
	for _, chain := range []*config.FilterChain{
		{Network: denied, HTTP: &config.HTTP{AccessLogs: to}},
		{Network: denied, TCP: &config.TCP{AccessLogs: to}},
	} {
		p.conduct(nil, &filter.Conn{Start: time.Now()}, chain, nil, nil)
	}
	files.Close()
	const line = "rbac_access_denied_matched_policy[none] TcpConnectionEnd -\n"
	if got, err := os.ReadFile(path); err != nil || string(got) != line+line {
		t.Errorf("%q, %v; want %q", got, err, line+line)
	}
}
