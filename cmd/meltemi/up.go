// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/meltemi/meltemi/local"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/telemetry/logs"
)

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func upCommand() *cobra.Command {
	cfg := local.UpDefaults()
	c := &cobra.Command{
		Use:   "up [PATH…]",
		Short: "Run a whole mesh on this machine",
		Long: `Run a whole mesh on this machine: control plane, certificate authority, a sidecar for
each workload, an ingress gateway and a sample application, and show its traffic.

PATH is a folder or file with configuration. Without one the sample's is written to
./` + cfg.Sample + `, where it can be edited: what is saved is in force at once.

As root on Linux, traffic is captured in network namespaces. Otherwise applications
are told of their proxy by HTTP_PROXY. Everything that was made is removed at the end.`,
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.BoolVar(&cfg.Plain, "plain", false, "write lines, do not draw")
	fs.BoolVar(&cfg.Check, "check", false, "check that the mesh does what it should, then end")
	fs.DurationVar(&cfg.For, "for", 0, "end after this long; 0: when interrupted")
	fs.StringVar(&cfg.Dir, "dir", cfg.Dir, "state folder")
	fs.StringVar(&cfg.Sample, "sample", cfg.Sample, "folder the sample's configuration is written to")
	fs.BoolVar(&cfg.NoCapture, "no-capture", false, "use explicit proxies even where traffic could be captured")
	fs.Float64Var(&cfg.Traffic, "traffic", cfg.Traffic, "requests per second to make, so that there is something to see; 0: none")
	fs.BoolVar(&cfg.HTTP10, "http10", false, "have proxies take HTTP/1.0, too; without it they answer 426")
	fs.Uint16Var(&cfg.XDS, "xds-port", cfg.XDS, "port of the control plane")
	fs.Uint16Var(&cfg.Monitoring, "monitoring-port", cfg.Monitoring, "port of the control plane's monitoring")
	c.RunE = workThatLeavesThings(func(ctx context.Context, insist <-chan struct{}, args []string) error {
		buildDataPlane(ctx, cfg.Dir, func(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) })
		if ctx.Err() != nil && cfg.Check {
			return local.ErrNotChecked
		}
		if ctx.Err() != nil {
			return nil
		}
		cfg.Paths, cfg.Proxy, cfg.Insist = args, dataPlane(cfg.Dir), insist
		cfg.Terminal, cfg.TerminalEnv, cfg.NoColor = os.Stdout, os.Environ(), os.Getenv("NO_COLOR") != ""
		cfg.Plain = cfg.Plain || os.Getenv("TERM") == "dumb"
		cfg.Log = logs.New(os.Stderr, logs.Config{Level: logs.Off}).Logger("up")
		return local.Up(ctx, cfg)
	})
	return c
}

func runCommand() *cobra.Command {
	cfg := local.RunDefaults()
	c := &cobra.Command{
		Use:   "run --service NAME [flags] -- COMMAND…",
		Short: "Run a command as a workload of the running mesh",
		Long: `Run a command as a workload of a mesh that "meltemi up" has started: with a sidecar,
an identity and a registration of its own. It leaves the mesh when the command ends.

The command is told by PORT where to listen and, where nothing is captured, by
HTTP_PROXY how to call others. Its exit code is ours.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("which command? Write it after --")
			}
			return nil
		},
	}
	fs := c.Flags()
	fs.SortFlags = false
	fs.SetInterspersed(false)
	fs.StringVar(&cfg.Service, "service", "", "service it is an instance of (required)")
	fs.StringVar(&cfg.Version, "version", "", "its version")
	fs.Uint16Var(&cfg.Port, "port", 0, "port the command listens on; 0: one is chosen, and told in PORT")
	protocol := ""
	fs.StringVar(&protocol, "protocol", "", "what the port carries, such as http, grpc or tcp; empty: found out from what each connection begins with")
	fs.StringVar(&cfg.Namespace, "namespace", cfg.Namespace, "its namespace")
	fs.StringVar(&cfg.Dir, "dir", cfg.Dir, "state folder of the mesh")
	c.RunE = func(c *cobra.Command, args []string) error {
		if cfg.Service == "" {
			return usagef("--service: say which service the command is an instance of")
		}
		if protocol != "" {
			p, ok := mesh.ParseProtocol(protocol)
			if !ok {
				return usagef("--protocol %q is none that is known: http, http2, grpc, grpc-web, tcp, tls, https, mongo, mysql or redis", protocol)
			}
			cfg.Protocol = p
		}
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
		defer signal.Stop(signals)
		survivePipes()
		cfg.Command, cfg.Env, cfg.Signals, cfg.Proxy = args, os.Environ(), signals, dataPlane(cfg.Dir)
		cfg.Out = os.Stderr // standard output is the command's
		return fail(local.Run(c.Context(), cfg))
	}
	return c
}
