// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"context"
	"errors"
	"flag"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meltemi/meltemi/local/watch"
)

var update = flag.Bool("update", false, "rewrite the expected screens in testdata")

var (
	noon   = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	header = Header{Page: "http://localhost:8080/productpage", Config: "./meltemi-bookshop", State: ".meltemi", How: "traffic is captured in network namespaces"}
	events = []Event{{noon, "ready in 2.1 s", false}, {noon.Add(time.Second), "sidecar of reviews-v1 ended: signal: killed\x1b[2J", true}}
)

func picture() watch.Picture {
	return watch.Picture{
		At: noon,
		Edges: []watch.Edge{
			{From: "istio-ingressgateway", To: "productpage", Version: "v1", Rate: 4, Share: 1, Success: 1, P50: 3100 * time.Microsecond, P99: 12 * time.Millisecond, Security: watch.Mutual},
			{From: "productpage-v1", To: "details", Version: "v1", Rate: 4, Share: 1, Success: 1, Security: watch.Unknown},
			{From: "productpage-v1", To: "reviews", Version: "v1", Rate: 3.2, Share: 0.8, Success: 1, P50: time.Millisecond, P99: 2 * time.Second, Security: watch.Mutual},
			{From: "productpage-v1", To: "reviews", Version: "v3", Rate: 0.8, Share: 0.2, Success: 0.75, P50: time.Millisecond, P99: 2 * time.Second, Security: watch.Mixed},
			{From: "unknown", To: "reviews", Version: "v1", Rate: 0.1, Share: 1, Success: 1, Security: watch.Plain},
		},
		Proxies:  []watch.Proxy{{Name: "ratings-v1", Err: "connection refused"}, {Name: "details-v1"}},
		Problems: []watch.Problem{{File: "meltemi-bookshop/reviews.yaml", Line: 31, Object: "VirtualService default/reviews", Field: "spec.http[1].route[0].weight", Message: "must not be negative", Severity: "error"}},
		Control:  "control plane: connection refused",
	}
}

func TestRender(t *testing.T) {
	many := picture()
	for range 20 {
		many.Problems = append(many.Problems, watch.Problem{Message: "w", Severity: "warning"})
	}
	for name, got := range map[string]string{
		"wide":   render(header, picture(), events, 120, plainStyle()),
		"narrow": render(header, picture(), events, 60, plainStyle()),
		"empty":  render(header, watch.Picture{}, nil, 80, plainStyle()),
		"many":   render(header, many, events, 80, plainStyle()),
	} {
		file := "testdata/" + name + ".txt"
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || string(want) != got {
			t.Errorf("%s differs (run with -update to accept), %v:\n%s", name, err, got)
		}
		if strings.Contains(got, "\x1b") {
			t.Errorf("%s: others' text steers the terminal", name)
		}
	}
	if colored := render(header, picture(), events, 120, colorStyle()); !strings.Contains(colored, "reviews") {
		t.Error(colored)
	}
}

func TestLines(t *testing.T) {
	var b strings.Builder
	l := NewLines(&b, 10*time.Second)
	l.Begin(header)
	l.Say(events[1])
	p := picture()
	l.Show(p)
	p.At = noon.Add(time.Second)
	l.Show(p) // nothing new
	p.Problems = nil
	l.Show(p)
	got := b.String()
	if strings.Count(got, "reviews.yaml:31") != 1 || strings.Count(got, "FROM") != 1 || strings.Count(got, "in force again") != 1 {
		t.Errorf("%s", got)
	}
	b.Reset()
	l.Begin(Header{Config: "copy", Scratch: true})
	if strings.Contains(b.String(), "edit") {
		t.Errorf("a copy is offered for editing: %s", b.String())
	}
	if !strings.Contains(got, "12:00:01  sidecar of reviews-v1 ended") {
		t.Errorf("%s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx, nil); err != nil {
		t.Error(err)
	}
}

func TestOutputThatNobodyReads(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	l := NewLines(w, time.Second)
	l.Begin(header)
	l.Say(events[0])
	if err := l.Run(t.Context(), nil); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v", err)
	}
}
