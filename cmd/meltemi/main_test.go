// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meltemi/meltemi/local"
	"github.com/meltemi/meltemi/local/made"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"meltemi": main}) }

// TestScripts runs testdata/script. Beside testscript's own commands there are
//
//	await URL [RE]  until it answers 200, with a text that matches
//	running DIR URL makes DIR the state folder of a mesh whose control plane is monitored at URL
//
// and in the environment PORT1 to PORT4, which nobody listens on.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			for i := 1; i <= 4; i++ {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				e.Setenv(fmt.Sprintf("PORT%d", i), strings.TrimPrefix(l.Addr().String(), "127.0.0.1:"))
				if err := l.Close(); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":   await,
			"running": running,
		},
	})
}

// patience is how long a program of ours may take to start on a busy machine.
const patience = 30 * time.Second

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: await URL [RE]")
	}
	wanted := regexp.MustCompile(strings.Join(args[1:], ""))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
		ts.Check(err)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			text, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK && wanted.Match(text) {
				return
			}
			err = fmt.Errorf("%s %s", resp.Status, text)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s does not answer: %v", args[0], err)
		}
	}
}

func running(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: running DIR URL")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	b, err := json.Marshal(local.Mesh{PID: os.Getpid(), Born: made.Born(os.Getpid()), Monitoring: args[1]})
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, "mesh.json"), b, 0o644))
}

func TestExitCodes(t *testing.T) {
	stderr := os.Stderr
	defer func() { os.Stderr = stderr }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	os.Stderr = null // what exit prints is looked at by the scripts
	for want, err := range map[int]error{
		0: nil,
		1: fail(errors.New("the disk is full")),
		2: fail(usagef("--x: no")),
		7: fail(fmt.Errorf("run: %w", &local.ExitError{Code: 7})),
	} {
		if got := exit(&cobra.Command{}, err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}

// What the manual says of flags and commands is what there is.
func TestTheManualKnowsEveryFlag(t *testing.T) {
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	for _, make := range []func() *cobra.Command{controlCommand, proxyCommand} {
		c := make()
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(manual, "`--"+f.Name+"`") {
				t.Errorf("docs/operations.md says nothing of --%s of meltemi %s", f.Name, c.Name())
			}
		})
	}
	known := map[string]bool{"control": true, "proxy": true, "bookshop": true, "up": true, "run": true, "version": true}
	for _, make := range subcommands {
		if c := make(); !known[c.Name()] && !strings.Contains(manual, "`meltemi "+c.Name()) {
			t.Errorf("docs/operations.md says nothing of meltemi %s", c.Name())
		}
	}
}
