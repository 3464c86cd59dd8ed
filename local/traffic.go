// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// runTraffic asks for the page at a gentle pace, so that there is something to see.
func (u *up) runTraffic(ctx context.Context) error {
	if u.cfg.Traffic <= 0 {
		return nil
	}
	client := &http.Client{Timeout: 15 * time.Second}
	tick := time.NewTicker(time.Duration(float64(time.Second) / u.cfg.Traffic))
	defer tick.Stop()
	slots := make(chan struct{}, 16) // a slow page must not pile up requests
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.mesh.Page+pagePath, nil)
			if err != nil {
				return
			}
			if resp, err := client.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
