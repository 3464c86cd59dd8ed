// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package istioapi_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/source/file"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
)

// BenchmarkEditedFile measures from the saving of a file of 1,000 VirtualServices, one of which has changed, to
// its new routes.
func BenchmarkEditedFile(b *testing.B) {
	const n = 1000
	text := func(edit int) string {
		var s strings.Builder
		for i := range n {
			weight := 50
			if i == 0 {
				weight = edit
			}
			fmt.Fprintf(&s, `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: svc-%d}
spec:
  hosts: [svc-%d]
  http:
  - match: [{uri: {prefix: /a}}]
    route:
    - {destination: {host: svc-%d, subset: v1}, weight: %d}
    - {destination: {host: svc-%d, subset: v2}, weight: 50}
---
`, i, i, i, weight, i)
		}
		return s.String()
	}
	dir := b.TempDir()
	path := filepath.Join(dir, "mesh.yaml")
	if err := os.WriteFile(path, []byte(text(1)), 0o644); err != nil {
		b.Fatal(err)
	}
	cfg := file.Defaults(dir)
	src, err := file.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld(src)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.gather.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-w.gather.Synced()
	watcher := w.graph.NewWatcher()
	scope := intent.Scope{Namespace: "default"}
	for i := range n {
		derive.Watch(watcher, w.wishes.Routes, intent.HostIn{Scope: scope, Host: mesh.ServiceHost(fmt.Sprintf("svc-%d", i), "default", "")}, nil)
	}
	watcher.Drain(func(*derive.Context, *derive.Hold) {})
	i := 1
	b.ResetTimer()
	for b.Loop() {
		i++
		if err := os.WriteFile(path, []byte(text(i)), 0o644); err != nil {
			b.Fatal(err)
		}
		for changed := 0; changed == 0; {
			<-watcher.Ready()
			watcher.Drain(func(*derive.Context, *derive.Hold) { changed++ })
		}
	}
}
