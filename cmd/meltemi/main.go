// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Command meltemi is the service mesh: control plane, data plane, a whole mesh on
// one machine, and the questions one asks of it. Nothing but this program and its
// sibling meltemi-proxy reads flags or the environment.
//
//	main.go      what the program can do, in one table; exit codes
//	control.go   control
//	proxy.go     proxy
//	bookshop.go  bookshop
//	up.go        up, run
//	diagnose.go  status, proxy-status, proxy-config, explain
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/meltemi/meltemi/cmd/internal/flags"
	"github.com/meltemi/meltemi/daemon"
	"github.com/meltemi/meltemi/local"
	"github.com/meltemi/meltemi/telemetry/logs"
)

// subcommands is all that the program can do, in the order of its help.
var subcommands = []func() *cobra.Command{
	upCommand,
	runCommand,
	statusCommand,
	proxyStatusCommand,
	proxyConfigCommand,
	explainCommand,
	controlCommand,
	proxyCommand,
	bookshopCommand,
	versionCommand,
}

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it was tried, and failed
	exitUsage   = 2 // it was not tried: the command line is none
)

func main() { os.Exit(run()) }

func run() int {
	root := &cobra.Command{
		Use:           "meltemi",
		Short:         "A service mesh in one program",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	cobra.EnableCommandSorting = false
	for _, make := range subcommands {
		root.AddCommand(make())
	}
	cmd, err := root.ExecuteContextC(context.Background())
	return exit(cmd, err)
}

// A failure is an error of work that was begun. Every other error is about the
// command line.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// exit prints err and returns the exit code.
func exit(cmd *cobra.Command, err error) int {
	var code *local.ExitError
	var f failure
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code): // of a command that was run: it has said why itself
		return code.Code
	case errors.As(err, &f):
		fmt.Fprintln(os.Stderr, "meltemi:", err)
		return exitFailure
	}
	fmt.Fprintf(os.Stderr, "meltemi: %v\nTry \"%s --help\".\n", err, cmd.CommandPath())
	return exitUsage
}

// work turns a function that works until its context ends into what cobra runs.
// The first interrupt asks it to end, the second ends the program.
func work(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)
		quiet := logs.New(os.Stderr, logs.Config{Level: logs.Off}).Logger("signals")
		ctx, stop := daemon.Heed(cmd.Context(), signals, quiet, func() { os.Exit(exitFailure) })
		defer stop()
		return fail(do(ctx, args))
	}
}

func fail(err error) error {
	if err == nil {
		return nil
	}
	var usage usageError
	if errors.As(err, &usage) {
		return err
	}
	return failure{err}
}

// A usageError is found when flags that fit by themselves are put together.
type usageError struct{ error }

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			fmt.Printf("meltemi %s (%s, %s/%s)\n", flags.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
