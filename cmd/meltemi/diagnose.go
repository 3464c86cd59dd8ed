// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meltemi/meltemi/cmd/internal/flags"
	"github.com/meltemi/meltemi/diagnose"
	"github.com/meltemi/meltemi/local"
	"github.com/meltemi/meltemi/proxy/explain"
)

// asker is what commands that ask about a mesh have in common.
type asker struct {
	dir, monitoring, output string
	admin                   netip.AddrPort
}

func (a *asker) flags(c *cobra.Command) {
	fs := c.Flags()
	fs.SortFlags = false
	fs.StringVar(&a.dir, "dir", local.UpDefaults().Dir, "state folder of the mesh")
	fs.StringVar(&a.monitoring, "monitoring", "", "monitoring port of a control plane, HOST:PORT, instead of --dir's")
	fs.StringVarP(&a.output, "output", "o", "table", "table or json")
}

// proxyFlags are of commands that ask one proxy.
func (a *asker) proxyFlags(c *cobra.Command) {
	a.flags(c)
	c.Flags().Var(flags.Addr{To: &a.admin}, "admin", "admin port of the proxy to ask, instead of WORKLOAD's")
}

// mesh finds the mesh to ask. A mesh that does not run matters only to questions
// that need it.
func (a *asker) mesh() (*diagnose.Mesh, error) {
	m := &diagnose.Mesh{Admin: a.admin, Out: os.Stdout, Proxies: filepath.Join(a.dir, "proxies")}
	switch a.output {
	case "table":
	case "json":
		m.JSON = true
	default:
		return nil, usagef("--output %s: want table or json", a.output)
	}
	if a.monitoring != "" {
		m.Monitoring = a.monitoring
		if !strings.Contains(m.Monitoring, "://") {
			m.Monitoring = "http://" + m.Monitoring
		}
		return m, nil
	}
	running, err := local.Running(a.dir)
	if err != nil && !a.admin.IsValid() {
		return nil, err
	}
	m.Monitoring = running.Monitoring
	return m, nil
}

// ask runs a question about a mesh.
func (a *asker) ask(question func(ctx context.Context, m *diagnose.Mesh, args []string) error) func(*cobra.Command, []string) error {
	return work(func(ctx context.Context, args []string) error {
		m, err := a.mesh()
		if err != nil {
			return err
		}
		return question(ctx, m, args)
	})
}

func statusCommand() *cobra.Command {
	a := &asker{}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is wrong with the configuration and with proxies",
		Long:  "Show what is wrong with the configuration and with proxies. The exit code is 1 if anything is refused or rejected.",
		Args:  cobra.NoArgs,
		RunE: a.ask(func(ctx context.Context, m *diagnose.Mesh, _ []string) error {
			return m.Status(ctx)
		}),
	}
	a.flags(c)
	return c
}

func proxyStatusCommand() *cobra.Command {
	a := &asker{}
	c := &cobra.Command{
		Use:   "proxy-status [WORKLOAD]",
		Short: "Show what each proxy was sent and made of it",
		Args:  cobra.MaximumNArgs(1),
		RunE: a.ask(func(ctx context.Context, m *diagnose.Mesh, args []string) error {
			return m.ProxyStatus(ctx, strings.Join(args, ""))
		}),
	}
	a.flags(c)
	return c
}

func proxyConfigCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "proxy-config",
		Aliases: []string{"pc"},
		Short:   "Show the configuration that a proxy has in force",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("say what to show: listeners, routes, clusters, endpoints or secrets")
		},
	}
	for _, s := range []struct {
		name string
		show func(m *diagnose.Mesh, ctx context.Context, workload string) error
	}{
		{"listeners", (*diagnose.Mesh).Listeners}, {"routes", (*diagnose.Mesh).Routes}, {"clusters", (*diagnose.Mesh).Clusters},
		{"endpoints", (*diagnose.Mesh).Endpoints}, {"secrets", (*diagnose.Mesh).Secrets},
	} {
		a := &asker{}
		sub := &cobra.Command{
			Use:     s.name + " WORKLOAD",
			Aliases: []string{strings.TrimSuffix(s.name, "s")},
			Short:   "Show the " + s.name + " of a proxy",
			Args: func(_ *cobra.Command, args []string) error {
				if len(args) > 1 || len(args) == 0 && !a.admin.IsValid() {
					return fmt.Errorf("name one workload, or a proxy's admin port with --admin")
				}
				return nil
			},
			RunE: a.ask(func(ctx context.Context, m *diagnose.Mesh, args []string) error {
				return s.show(m, ctx, strings.Join(args, ""))
			}),
		}
		a.proxyFlags(sub)
		c.AddCommand(sub)
	}
	return c
}

func explainCommand() *cobra.Command {
	a := &asker{}
	var q diagnose.Question
	var headers []string
	var random uint64
	c := &cobra.Command{
		Use:   "explain --from WORKLOAD URL",
		Short: "Say where a request would go, and why",
		Long: `Say where a request would go, and why: which listener, filter chain, route, cluster and
endpoint, how the connection is secured, and whether the callee's policy lets it in.
Each step names the object that made it so, with file and line, and what was
considered and lost. The proxies answer with the functions they serve requests with;
nothing is sent to a workload.

URL is http://HOST[:PORT]/PATH, https:// for TLS of the application's own, or
tcp://HOST:PORT.`,
		Example: `  meltemi explain --from productpage-v1 http://reviews:9080/reviews/0 -H "end-user: jason"`,
	}
	a.proxyFlags(c)
	fs := c.Flags()
	fs.StringVar(&q.From, "from", "", "workload, or gateway, that the request comes through")
	fs.StringArrayVarP(&headers, "header", "H", nil, `header field, "name: value"; may be repeated`)
	fs.StringVarP(&q.Method, "request", "X", "GET", "method")
	fs.Uint64Var(&random, "random", 0, "number that stands for chance, which decides between weights; drawn unless given")
	c.Args = func(c *cobra.Command, args []string) error {
		if q.From == "" && !a.admin.IsValid() {
			return errors.New("--from: say which workload the request comes from")
		}
		return cobra.ExactArgs(1)(c, args)
	}
	c.RunE = a.ask(func(ctx context.Context, m *diagnose.Mesh, args []string) error {
		q.URL = args[0]
		if !strings.Contains(q.URL, "://") {
			q.URL = "http://" + q.URL
		}
		for _, h := range headers {
			name, value, ok := strings.Cut(h, ":")
			if name = strings.TrimSpace(name); !ok || name == "" {
				return usagef(`--header %q: want "name: value"`, h)
			}
			q.Headers = append(q.Headers, explain.Header{Name: name, Value: strings.TrimSpace(value)})
		}
		if fs.Changed("random") {
			q.Random = &random
		}
		return m.Explain(ctx, q)
	})
	return c
}
