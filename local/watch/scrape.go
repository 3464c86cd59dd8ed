// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxScrape bounds what a proxy may answer, in bytes.
const maxScrape = 16 << 20

// Names of Istio's standard metrics and of the labels looked at.
const (
	requestsTotal    = "istio_requests_total"
	requestDuration  = "istio_request_duration_milliseconds"
	labelReporter    = "reporter"
	labelSource      = "source_workload"
	labelDestination = "destination_service_name"
	labelVersion     = "destination_version"
	labelCode        = "response_code"
	labelSecurity    = "connection_security_policy"
)

// edgeKey is from whom to what, as one side reports it.
type edgeKey struct {
	from, to, version string
	bySource          bool // the caller's proxy says so; else the callee's
}

// counters are what is counted per edge.
type counters struct {
	requests, failed float64 // failed: 5xx, or no response at all
	mutual, plain    float64 // by security of the connection, where known
	sum              float64 // milliseconds
	buckets          map[float64]float64
}

func (c counters) empty() bool { return c.requests == 0 }

// minus returns what c has more than before. Counters that went back began anew.
func (c counters) minus(before counters) counters {
	if c.requests < before.requests {
		return c
	}
	d := counters{
		requests: c.requests - before.requests, failed: c.failed - before.failed,
		mutual: c.mutual - before.mutual, plain: c.plain - before.plain,
		sum:     c.sum - before.sum,
		buckets: make(map[float64]float64, len(c.buckets)),
	}
	for le, n := range c.buckets {
		d.buckets[le] = n - before.buckets[le]
	}
	return d
}

func (c counters) plus(o counters) counters {
	c.requests += o.requests
	c.failed += o.failed
	c.mutual += o.mutual
	c.plain += o.plain
	c.sum += o.sum
	c.buckets = maps.Clone(c.buckets)
	if c.buckets == nil {
		c.buckets = make(map[float64]float64, len(o.buckets))
	}
	for le, n := range o.buckets {
		c.buckets[le] += n
	}
	return c
}

// scrape reads the metrics of the proxy at url.
func scrape(ctx context.Context, client *http.Client, url string) (map[edgeKey]counters, error) {
	body, err := get(ctx, client, url+"/stats/prometheus")
	if err != nil {
		return nil, err
	}
	return parse(body)
}

// get fetches a page whole, within maxScrape.
func get(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxScrape))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return string(b), nil
}

// parse reads the two families we know; all others are not parsed at all.
func parse(text string) (map[edgeKey]counters, error) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# TYPE "), "# HELP ")
		if strings.HasPrefix(name, requestsTotal) || strings.HasPrefix(name, requestDuration) {
			b.WriteString(line)
		}
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(b.String()))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	all := map[edgeKey]counters{}
	for _, m := range families[requestsTotal].GetMetric() {
		k, labels := keyOf(m)
		c := all[k]
		n := m.GetCounter().GetValue()
		c.requests += n
		if code := labels[labelCode]; code == "0" || strings.HasPrefix(code, "5") {
			c.failed += n
		}
		switch labels[labelSecurity] {
		case "mutual_tls":
			c.mutual += n
		case "none":
			c.plain += n
		}
		all[k] = c
	}
	for _, m := range families[requestDuration].GetMetric() {
		k, _ := keyOf(m)
		h := m.GetHistogram()
		d := counters{sum: h.GetSampleSum(), buckets: make(map[float64]float64, len(h.GetBucket()))}
		for _, bucket := range h.GetBucket() {
			d.buckets[bucket.GetUpperBound()] = float64(bucket.GetCumulativeCount())
		}
		all[k] = all[k].plus(d)
	}
	return all, nil
}

func keyOf(m *dto.Metric) (edgeKey, map[string]string) {
	labels := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return edgeKey{
		from:     labels[labelSource],
		to:       labels[labelDestination],
		version:  labels[labelVersion],
		bySource: labels[labelReporter] == "source",
	}, labels
}
