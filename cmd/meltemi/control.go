// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/meltemi/meltemi/cmd/internal/flags"
	"github.com/meltemi/meltemi/control"
)

func controlCommand() *cobra.Command {
	cfg := control.Defaults()
	var levels string
	c := &cobra.Command{
		Use:   "control --state DIR --config PATH…",
		Short: "Run the control plane",
		Long: `Run the control plane: it reads configuration from folders, follows their changes,
signs certificates, and tells every proxy what concerns it.`,
		Args: cobra.NoArgs,
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.StringVar(&cfg.State, "state", "", "folder that keeps the root of trust and the join tokens (required)")
	fs.StringArrayVar(&cfg.Folders, "config", nil, "folder or file with configuration; may be repeated, the earlier one wins")
	fs.Var(&flags.Addrs{To: &cfg.XDS}, "xds", "serve xDS and certificates there, over TLS; may be repeated")
	fs.Var(flags.Addr{To: &cfg.Monitoring}, "monitoring", "status and metrics")
	fs.StringArrayVar(&cfg.ServingNames, "serving-name", nil, "further DNS name or address of the server's certificate; may be repeated")
	fs.StringVar((*string)(&cfg.Mesh.TrustDomain), "trust-domain", string(cfg.Mesh.TrustDomain), "trust domain of all identities")
	fs.DurationVar(&cfg.CertLifetime, "cert-lifetime", 0, "lifetime of workload certificates; 0: 24 hours")
	fs.StringVar(&cfg.Mesh.AccessLogFile, "access-log-file", cfg.Mesh.AccessLogFile, "where proxies write their access log, such as /dev/stdout; empty: nowhere")
	fs.BoolVar(&cfg.Mesh.HTTP10, "http10", false, "have proxies take HTTP/1.0, too; without it they answer 426")
	fs.StringVar(&levels, "log-level", "info", "trace, debug, info, warning, error or off; COMPONENT=LEVEL for one component")
	c.RunE = work(func(ctx context.Context, _ []string) error {
		if cfg.State == "" {
			return usagef("--state: name the folder that keeps the root of trust")
		}
		l, err := flags.NewLogs(os.Stderr, levels)
		if err != nil {
			return usageError{err}
		}
		cfg.Log = l.Logger
		plane, err := control.New(cfg)
		if err != nil {
			return err
		}
		return plane.Run(ctx)
	})
	return c
}
