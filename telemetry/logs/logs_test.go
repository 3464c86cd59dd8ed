// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package logs

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestLevelsChange(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, Config{Level: slog.LevelWarn, Of: map[string]slog.Level{"xds": slog.LevelDebug}})
	pool, xds := l.Logger("pool"), l.Logger("xds").With("peer", "istiod")
	pool.Info("quiet")
	xds.Debug("loud")
	if err := l.Set("pool", slog.LevelInfo); err != nil {
		t.Fatal(err)
	}
	pool.Info("now loud")
	if err := l.Set("", Off); err != nil {
		t.Fatal(err)
	}
	xds.Error("off")
	got := out.String()
	for _, want := range []string{"component=xds peer=istiod", `msg="now loud"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(got, "quiet") || strings.Contains(got, "msg=off") {
		t.Errorf("too loud: %s", got)
	}
	if err := l.Set("nobody", 0); err == nil || !strings.Contains(err.Error(), "pool, xds") {
		t.Errorf("error %v does not name the components", err)
	}
	if l.Levels()["pool"] != Off {
		t.Errorf("levels %v", l.Levels())
	}
}

func TestParseLevel(t *testing.T) {
	for s, want := range map[string]slog.Level{"trace": Trace, "WARNING": slog.LevelWarn, "critical": 12, "off": Off} {
		if got, err := ParseLevel(s); err != nil || got != want {
			t.Errorf("%s = %v, %v", s, got, err)
		}
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("no error")
	}
}
