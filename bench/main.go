// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures proxies side by side, in one run on one machine: CPU
// per request of nginx, Envoy and ours, on the same work. Only ratios count.
//
//	main.go     the rows, the rounds, the table
//	peers.go    how each proxy is started for each row
//	relay.go    a relay of bytes, for what any proxy in Go must cost
//	process.go  starting, measuring and ending processes
//
// Everything listens on loopback. A proxy that is not installed is left out and
// named. The load comes from wrk and h2load, the origin is nginx.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"
)

// A row is one kind of work.
type row struct {
	name  string
	http2 bool // the client speaks HTTP/2
	mtls  bool // the origin asks for TLS 1.3 with a client certificate
}

var rows = []row{
	{name: "HTTP/1.1 in, HTTP/1.1 out"},
	{name: "HTTP/2 in, HTTP/1.1 out", http2: true},
	{name: "HTTP/1.1 in, mTLS out", mtls: true},
}

// A figure is one measurement.
type figure struct {
	cpu      time.Duration // of the proxy, per request
	requests int
	rss      int // KiB, after the load
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == relayArg {
		fmt.Fprintln(os.Stderr, "relay:", relay(os.Args[2:]))
		os.Exit(1)
	}
	rounds := flag.Int("rounds", 3, "how often each proxy is measured, in turn")
	seconds := flag.Int("seconds", 5, "length of one measurement")
	proxy := flag.String("proxy", "bin/meltemi-proxy", "our data plane")
	only := flag.String("only", "", "comma-separated proxies to measure: nginx, envoy, relay (of bytes, in Go), meltemi-1 (one core), meltemi (all)")
	profile := flag.String("cpuprofile", "", "folder for CPU profiles of our proxy")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *rounds, *seconds, *proxy, *only, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds, seconds int, proxy, only, profile string) error {
	b, err := newBench(proxy, profile)
	if err != nil {
		return err
	}
	defer b.close()
	peers, missing := b.peers(only)
	for _, m := range missing {
		fmt.Println("left out:", m)
	}
	if len(peers) == 0 {
		return errors.New("no proxy to measure")
	}
	if err := b.startOrigins(ctx); err != nil {
		return err
	}
	fmt.Printf("%d rounds of %d s; 32 connections (HTTP/2: 4 with 25 streams each), 1 KiB; median CPU per request of the proxy's process\n", rounds, seconds)
	for _, r := range rows {
		figures := make(map[string][]figure)
		for range rounds {
			for _, p := range peers {
				if p.name == relayArg && r.http2 {
					continue // bytes of HTTP/2 are no HTTP/1.1
				}
				f, err := b.measure(ctx, p, r, seconds)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", p.name, r.name, err)
				}
				figures[p.name] = append(figures[p.name], f)
			}
		}
		report(r, peers, figures)
	}
	return nil
}

func report(r row, peers []peer, figures map[string][]figure) {
	fmt.Printf("\n%s\n%s\n", r.name, strings.Repeat("-", len(r.name)))
	base := map[string]time.Duration{}
	for _, p := range peers {
		if len(figures[p.name]) == 0 {
			continue
		}
		base[p.name] = median(figures[p.name])
	}
	fmt.Printf("%-12s %12s %14s %10s %9s %9s\n", "proxy", "µs/request", "spread", "RSS MiB", "x nginx", "x envoy")
	for _, p := range peers {
		fs := figures[p.name]
		if len(fs) == 0 {
			continue
		}
		lo, hi := fs[0].cpu, fs[0].cpu
		for _, f := range fs {
			lo, hi = min(lo, f.cpu), max(hi, f.cpu)
		}
		fmt.Printf("%-12s %12.1f %6.1f –%6.1f %10.1f %9s %9s\n", p.name, micro(base[p.name]), micro(lo), micro(hi),
			float64(fs[len(fs)-1].rss)/1024, ratio(base[p.name], base["nginx"]), ratio(base[p.name], base["envoy"]))
	}
}

func median(fs []figure) time.Duration {
	all := make([]time.Duration, len(fs))
	for i, f := range fs {
		all[i] = f.cpu
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func ratio(a, b time.Duration) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}
