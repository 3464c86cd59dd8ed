// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Command meltemi-proxy is the data plane alone: what "meltemi proxy" runs, in a
// program that holds nothing else, because every workload has one.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/meltemi/meltemi/cmd/internal/flags"
	"github.com/meltemi/meltemi/cmd/internal/lean"
	"github.com/meltemi/meltemi/daemon"
	"github.com/meltemi/meltemi/proxy"
)

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code: 0, 1 for a failure, 2 for a command line that is none.
func run(args []string) int {
	fs := pflag.NewFlagSet("meltemi-proxy", pflag.ContinueOnError)
	fs.SortFlags = false
	version := fs.Bool("version", false, "print the version")
	configure := flags.Proxy(fs, os.Stderr)
	process := flags.Process(fs)
	if err := fs.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return 0
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "meltemi-proxy:", err)
		return 2
	}
	if *version {
		fmt.Println(flags.Version())
		return 0
	}
	cfg, err := configure()
	if err == nil && fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	var end func() error
	if err == nil {
		end, err = process()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "meltemi-proxy:", err)
		return 2
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, stop := daemon.Heed(context.Background(), signals, cfg.Logs.Logger("daemon"), func() { os.Exit(1) })
	defer stop()
	flags.NameProcess("meltemi-proxy")
	lean.Pace()
	p, err := proxy.New(cfg)
	if err == nil {
		go lean.Settle(ctx, p.Ready)
		err = p.Run(ctx)
	}
	if err = errors.Join(err, end()); err != nil {
		fmt.Fprintln(os.Stderr, "meltemi-proxy:", err)
		return 1
	}
	return 0
}
