// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	pagePath   = "/productpage"
	hopHeader  = "Bookshop-Hop" // of the sample: service, version, instance, identity of its caller
	sampleSize = 400            // requests from which weights are judged
	wantV3     = 0.2            // the sample's weight of reviews v3; the rest is v1
	// tolerance is how far chance may move a share of sampleSize requests: four and a half standard
	// deviations, so that a right mesh fails once in a hundred thousand runs.
	tolerance = 4.5
)

// A reply is what a request got.
type reply struct {
	status int
	body   string
	hops   map[string]hop // by service
}

type hop struct{ version, peer string }

// get asks for path as user, if any.
func (m *Mesh) get(ctx context.Context, path, user string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.Page+path, nil)
	if err != nil {
		return reply{}, err
	}
	if user != "" {
		req.AddCookie(&http.Cookie{Name: "session", Value: user}) // as the sample's login sets it
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return reply{}, err
	}
	r := reply{status: resp.StatusCode, body: string(b), hops: map[string]hop{}}
	for _, h := range resp.Header.Values(hopHeader) {
		if f := strings.Fields(h); len(f) == 4 {
			r.hops[f[0]] = hop{f[1], strings.TrimPrefix(f[3], "-")}
		}
	}
	return r, nil
}

// pageAs is get of the page, which must come.
func (m *Mesh) pageAs(ctx context.Context, user string) (reply, error) {
	r, err := m.get(ctx, pagePath, user)
	if err != nil {
		return r, err
	}
	if r.status != http.StatusOK {
		return r, fmt.Errorf("%s%s answered %d: %s", m.Page, pagePath, r.status, firstLine(r.body))
	}
	return r, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line[:min(len(line), 200)]
}

// patience is how long the page may take to come the first time.
const patience = 10 * time.Second

// page wants a page with details and reviews on it. A mesh that has just been started may need a moment.
func page(ctx context.Context, m *Mesh) (string, error) {
	began := time.Now()
	r, err := m.pageAs(ctx, "")
	for tick := time.NewTicker(50 * time.Millisecond); err != nil && time.Since(began) < patience; r, err = m.pageAs(ctx, "") {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", err
		}
	}
	if err != nil {
		return "", err
	}
	for _, service := range []string{"productpage", "details", "reviews"} {
		if r.hops[service].version == "" {
			return "", fmt.Errorf("the page came without %s", service)
		}
	}
	return m.Page + pagePath, nil
}

// weights counts who answers: eight in ten v1, two in ten v3, as reviews.yaml says.
func weights(ctx context.Context, m *Mesh) (string, error) {
	count, err := m.versions(ctx, sampleSize, "")
	if err != nil {
		return "", err
	}
	share := float64(count["v3"]) / sampleSize
	slack := tolerance * math.Sqrt(wantV3*(1-wantV3)/sampleSize)
	detail := fmt.Sprintf("of %d requests to reviews v1 answered %d, v2 %d, v3 %d", sampleSize, count["v1"], count["v2"], count["v3"])
	if count["v1"]+count["v3"] != sampleSize || math.Abs(share-wantV3) > slack {
		return "", fmt.Errorf("%s; want %.0f %% v1 and %.0f %% v3, give or take %.0f", detail, 100*(1-wantV3), 100*wantV3, 100*slack)
	}
	return detail, nil
}

// versions asks for the page n times, eight at once, and counts which version of reviews answered; "" is none.
func (m *Mesh) versions(ctx context.Context, n int, user string) (map[string]int, error) {
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		count = map[string]int{}
		first error
		left  = make(chan struct{}, n)
	)
	for range n {
		left <- struct{}{}
	}
	close(left)
	for range 8 {
		wg.Go(func() {
			for range left {
				r, err := m.pageAs(ctx, user)
				mu.Lock()
				if err != nil && first == nil {
					first = err
				}
				count[r.hops["reviews"].version]++
				stop := first != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	return count, first
}

// header wants jason, and nobody else, to see v2.
func header(ctx context.Context, m *Mesh) (string, error) {
	const n = 30
	count, err := m.versions(ctx, n, "jason")
	if err != nil {
		return "", err
	}
	if count["v2"] != n {
		return "", fmt.Errorf("jason saw reviews v1 %d, v2 %d, v3 %d times of %d; want v2 always", count["v1"], count["v2"], count["v3"], n)
	}
	return fmt.Sprintf("jason saw v2 %d times of %d", n, n), nil
}

const noRatings = "Ratings service is currently unavailable"

// fault wants mallory, and nobody else, to get no ratings.
func fault(ctx context.Context, m *Mesh) (string, error) {
	for range 5 {
		r, err := m.pageAs(ctx, "mallory")
		switch {
		case err != nil:
			return "", err
		case !strings.Contains(r.body, noRatings):
			return "", errors.New("mallory got ratings: the fault that ratings.yaml injects is not in force")
		case r.hops["ratings"].version != "":
			return "", errors.New("mallory's call reached ratings: the fault was not injected on the way")
		}
		if r, err = m.pageAs(ctx, "jason"); err != nil {
			return "", err
		}
		if strings.Contains(r.body, noRatings) {
			return "", errors.New("jason got no ratings: a fault meets him that is meant for mallory, or ratings cannot be reached")
		}
	}
	return "mallory's calls to ratings are aborted with 500, jason's are not", nil
}

// authorization wants ratings to refuse productpage, which may not read it.
func authorization(ctx context.Context, m *Mesh) (string, error) {
	r, err := m.get(ctx, "/api/v1/products/0/ratings", "")
	if err != nil {
		return "", err
	}
	if r.status != http.StatusForbidden {
		return "", fmt.Errorf("productpage asked ratings and got status %d, want 403: the policy that lets reviews alone read ratings is not in force", r.status)
	}
	return "ratings refuses productpage with 403, and answers reviews", nil
}

// onlyV3 is what change saves.
const onlyV3 = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
  namespace: default
spec:
  hosts:
  - reviews
  http:
  - route:
    - destination:
        host: reviews
        subset: v3
`

// change saves another reviews.yaml, and waits for traffic to follow.
func change(ctx context.Context, m *Mesh) (string, error) {
	file, err := findFile(m.Folder, "reviews.yaml")
	if err != nil {
		return "", err
	}
	before, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = os.WriteFile(file, before, 0o644) }()
	saved := time.Now()
	if err := os.WriteFile(file, []byte(onlyV3), 0o644); err != nil {
		return "", err
	}
	// In force is when the first of many answers in a row by v3 was asked for.
	var since time.Time
	for inRow := 0; inRow < 40; {
		asked := time.Now()
		r, err := m.pageAs(ctx, "")
		if err != nil {
			return "", fmt.Errorf("reviews.yaml was changed to v3 only, and: %w", err)
		}
		if r.hops["reviews"].version != "v3" {
			inRow = 0
			continue
		}
		if inRow == 0 {
			since = asked
		}
		inRow++
	}
	took := since.Sub(saved)
	detail := fmt.Sprintf("reviews.yaml was in force %d ms after it was saved", max(took.Milliseconds(), 0))
	if took > time.Second {
		return "", fmt.Errorf("%s, want a second at most", detail)
	}
	return detail, nil
}

// findFile finds the first file of that name below dir.
func findFile(dir, name string) (found string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == name && found == "" {
			found = path
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("there is no %s in the configuration, which this check would change", name)
	}
	return found, err
}
