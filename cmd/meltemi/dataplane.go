// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/meltemi/meltemi/local"
)

const (
	dataPlaneName    = "meltemi-proxy"
	dataPlanePackage = "github.com/meltemi/meltemi/cmd/" + dataPlaneName
)

// dataPlane is the data plane as a program of its own: a sidecar is what every
// workload pays for. It lies beside this program ("make build" puts it there), or, if
// "go run" started us, where buildDataPlane puts it for the mesh of the state folder dir. Empty: there is none.
func dataPlane(dir string) string {
	own, err := os.Executable()
	if err != nil {
		return ""
	}
	path := filepath.Join(filepath.Dir(own), dataPlaneName)
	if underGoRun(own) {
		path = builtDataPlane(dir)
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return ""
	}
	return path
}

func builtDataPlane(dir string) string { return filepath.Join(dir, "bin", dataPlaneName) }

// Where "go run" puts a program: a folder go-build1234/b001/exe, or an entry of the build cache.
var goRunFolder = regexp.MustCompile(`/go-build\d+/|/go-build/[0-9a-f]{2}/|/[0-9a-f]{64}-d/[^/]+$`)

func underGoRun(exe string) bool { return goRunFolder.MatchString(filepath.ToSlash(exe)) }

// buildDataPlane brings the data plane's program in dir up to date if "go run" started us, which builds one
// program only. What that has compiled is used again. Without the program sidecars run this one, which is larger.
func buildDataPlane(ctx context.Context, dir string, say func(format string, args ...any)) {
	own, err := os.Executable()
	if err != nil || dir == "" || !underGoRun(own) {
		return
	}
	if _, err := local.Running(dir); err == nil {
		return // the mesh that runs there has it in use; to start another one fails anyway
	}
	slow := time.AfterFunc(time.Second, func() { say("building %s, which sidecars run", dataPlanePackage) })
	defer slow.Stop()
	path := builtDataPlane(dir)
	if err := build(ctx, path); err != nil && ctx.Err() == nil {
		_ = os.Remove(path) // it is of another time, or nothing that can be executed there
		say("sidecars run all of meltemi, which takes more memory: %v", err)
	}
}

// build makes path the data plane's program, and tries it.
func build(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// As the Makefile does; "go run" leaves out the version, too.
	if err := execute(ctx, "go", "build", "-buildvcs=false", "-tags=grpcnotrace", "-o", path, dataPlanePackage); err != nil {
		return err
	}
	return execute(ctx, path, "--version") // a file system may execute nothing
}

// execute runs a command to its end; what is wrong with it is the first line that it says, but for the compiler's headings.
func execute(ctx context.Context, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	if err == nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "# ") {
			return fmt.Errorf("%s: %s", c, line)
		}
	}
	return fmt.Errorf("%s: %w", c, err)
}
