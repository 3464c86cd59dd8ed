// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// Security is how the connections of an edge were protected.
type Security int

// The ways there are.
const (
	Unknown Security = iota
	Mutual
	Plain
	Mixed
)

// An Edge is the traffic from one workload to one version of a service, over the window.
type Edge struct {
	From, To, Version string
	Requests          float64 // in the window
	Rate              float64 // per second
	Share             float64 // of all that From sends To, 0 to 1
	Success           float64 // 0 to 1
	P50, P99          time.Duration
	Security          Security
}

type flow struct{ from, to, version string }

// edges adds up what was counted over span. The caller's view counts where there is one, as it
// knows of requests that never arrived; how connections were protected, only the callee knows.
func edges(recent []slice, span time.Duration) []Edge {
	source, dest := map[flow]counters{}, map[flow]counters{}
	for _, s := range recent {
		for k, c := range s.added {
			sums := dest
			if k.bySource {
				sums = source
			}
			f := flow{k.from, k.to, k.version}
			sums[f] = sums[f].plus(c)
		}
	}
	merged := maps.Clone(dest)
	maps.Copy(merged, source)
	totals := map[flow]float64{}
	for f, c := range merged {
		totals[flow{f.from, f.to, ""}] += c.requests
	}
	var out []Edge
	for f, c := range merged {
		seen := dest[f]
		out = append(out, Edge{
			From: f.from, To: f.to, Version: f.version,
			Requests: c.requests,
			Rate:     c.requests / span.Seconds(),
			Share:    c.requests / totals[flow{f.from, f.to, ""}],
			Success:  1 - c.failed/c.requests,
			P50:      quantile(c.buckets, 0.5),
			P99:      quantile(c.buckets, 0.99),
			Security: security(seen.mutual, seen.plain),
		})
	}
	slices.SortFunc(out, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Version, b.Version))
	})
	return out
}

func security(mutual, plain float64) Security {
	switch {
	case mutual > 0 && plain > 0:
		return Mixed
	case mutual > 0:
		return Mutual
	case plain > 0:
		return Plain
	}
	return Unknown
}

// quantile reads cumulative buckets in milliseconds, straight lines between their bounds, as Prometheus does.
func quantile(buckets map[float64]float64, q float64) time.Duration {
	bounds := slices.Sorted(maps.Keys(buckets))
	if len(bounds) == 0 {
		return 0
	}
	total := buckets[bounds[len(bounds)-1]]
	if total == 0 {
		return 0
	}
	rank := q * total
	below, count := 0.0, 0.0
	for _, le := range bounds {
		n := buckets[le]
		if n < rank {
			below, count = le, n
			continue
		}
		if math.IsInf(le, 1) || n == count {
			return milliseconds(below)
		}
		return milliseconds(below + (le-below)*(rank-count)/(n-count))
	}
	return milliseconds(below)
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
