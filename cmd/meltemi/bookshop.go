// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/meltemi/meltemi/cmd/internal/flags"
	"github.com/meltemi/meltemi/samples/bookshop"
	"github.com/meltemi/meltemi/telemetry/logs"
)

func bookshopCommand() *cobra.Command {
	cfg := bookshop.Defaults()
	c := &cobra.Command{
		Use:   "bookshop SERVICE VERSION",
		Short: "Run a service of the sample application",
		Long:  "Run a service of the sample application: productpage v1, details v1, reviews v1, v2 or v3, or ratings v1.",
		Args:  cobra.ExactArgs(2),
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.Var(flags.Addr{To: &cfg.Listen}, "listen", "where to listen")
	fs.StringVar(&cfg.Instance, "instance", "", "name of the instance, shown in answers")
	fs.StringVar(&cfg.Cluster, "cluster", "", "name of the cluster, shown by reviews")
	fs.StringVar(&cfg.Details, "details", cfg.Details, "base URL of details")
	fs.StringVar(&cfg.Reviews, "reviews", cfg.Reviews, "base URL of reviews")
	fs.StringVar(&cfg.Ratings, "ratings", cfg.Ratings, "base URL of ratings")
	c.RunE = work(func(ctx context.Context, args []string) error {
		// Where nothing is captured, the environment names the proxy.
		if p := os.Getenv("HTTP_PROXY"); p != "" {
			u, err := url.Parse(p)
			if err != nil {
				return usageError{fmt.Errorf("HTTP_PROXY: %w", err)}
			}
			cfg.Proxy = u
		}
		cfg.Log = logs.New(os.Stderr, logs.Config{}).Logger("bookshop")
		return bookshop.Run(ctx, args[0], args[1], cfg)
	})
	return c
}
