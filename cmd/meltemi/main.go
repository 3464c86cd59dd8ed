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
	flags.NameProcess("meltemi")
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
	case errors.As(err, &code):
		if code.Why != nil { // else the command has said why itself
			fmt.Fprintln(os.Stderr, "meltemi:", code.Why)
		}
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
		ctx, stop := heed(cmd.Context(), signals, func() { os.Exit(exitFailure) })
		defer stop()
		return fail(do(ctx, args))
	}
}

// workThatLeavesThings is work for what must not end before it has cleaned up: every way to end it
// asks it to. When the second closes insist, it is for it to end at once.
func workThatLeavesThings(do func(ctx context.Context, insist <-chan struct{}, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
		if !signal.Ignored(syscall.SIGHUP) { // as with nohup
			signal.Notify(signals, syscall.SIGHUP)
		}
		defer signal.Stop(signals)
		survivePipes()
		insist := make(chan struct{})
		ctx, stop := heed(cmd.Context(), signals, func() { close(insist) })
		defer stop()
		return fail(do(ctx, insist, args))
	}
}

func heed(ctx context.Context, signals <-chan os.Signal, insist func()) (context.Context, func()) {
	return daemon.Heed(ctx, signals, logs.New(os.Stderr, logs.Config{Level: logs.Off}).Logger("signals"), insist)
}

// survivePipes makes writing to a standard output that nobody reads an error like any other, in
// the place of our end. Children are not affected, as they would be if the signal were ignored.
func survivePipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

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
