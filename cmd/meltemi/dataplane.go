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
	path, err := filepath.Abs(builtDataPlane(dir))
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err != nil {
		say("sidecars run all of meltemi, which takes more memory: %v", err)
		return
	}
	slow := time.AfterFunc(time.Second, func() { say("building %s, which sidecars run", dataPlanePackage) })
	defer slow.Stop()
	// As the Makefile does; "go run" leaves out the version, too.
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags=grpcnotrace", "-o", path, dataPlanePackage)
	build.WaitDelay = time.Second
	if out, err := build.CombinedOutput(); err != nil && ctx.Err() == nil {
		_ = os.Remove(path) // it is of another time
		say("sidecars run all of meltemi, which takes more memory: go build %s: %v", dataPlanePackage, firstLine(out, err))
	} else if out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput(); err != nil && ctx.Err() == nil {
		_ = os.Remove(path) // as on a file system that executes nothing
		say("sidecars run all of meltemi, which takes more memory: %s: %v", path, firstLine(out, err))
	}
}

// firstLine is what a command said of its failure.
func firstLine(out []byte, err error) string {
	if line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n"); line != "" {
		return line
	}
	return fmt.Sprint(err)
}
