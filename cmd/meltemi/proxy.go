// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/meltemi/meltemi/cmd/internal/flags"
	"github.com/meltemi/meltemi/cmd/internal/lean"
	"github.com/meltemi/meltemi/proxy"
)

func proxyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "proxy --name NAME …",
		Short: "Run a sidecar or a gateway",
		Long: `Run a sidecar or a gateway, configured by a control plane or by a file. The program
meltemi-proxy does the same and holds nothing else.`,
		Args: cobra.NoArgs,
	}
	c.Flags().SortFlags = false
	configure := flags.Proxy(c.Flags(), os.Stderr)
	process := flags.Process(c.Flags())
	c.RunE = work(func(ctx context.Context, _ []string) error {
		cfg, err := configure()
		if err != nil {
			return usageError{err}
		}
		end, err := process()
		if err != nil {
			return usageError{err}
		}
		lean.Pace()
		p, err := proxy.New(cfg)
		if err == nil {
			go lean.Settle(ctx, p.Ready)
			err = p.Run(ctx)
		}
		return errors.Join(err, end())
	})
	return c
}
