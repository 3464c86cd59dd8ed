// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"

	"github.com/spf13/pflag"
)

// Process adds the flags of the process that a proxy runs in. Once they are
// parsed, the function it returns puts them in force; what that returns in turn
// is called at the end.
func Process(fs *pflag.FlagSet) func() (end func() error, err error) {
	concurrency := fs.Int("concurrency", 0, "how many cores to use at once; 0: all there are")
	profile := fs.String("cpuprofile", "", "file for a CPU profile of the whole run")
	return func() (func() error, error) {
		switch {
		case *concurrency < 0:
			return nil, fmt.Errorf("--concurrency %d: want 0 for all cores, or how many", *concurrency)
		case *concurrency > 0:
			runtime.GOMAXPROCS(*concurrency)
		}
		if *profile == "" {
			return func() error { return nil }, nil
		}
		f, err := os.Create(*profile)
		if err != nil {
			return nil, fmt.Errorf("--cpuprofile: %w", err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, errors.Join(fmt.Errorf("--cpuprofile: %w", err), f.Close())
		}
		return func() error {
			pprof.StopCPUProfile()
			return f.Close()
		}, nil
	}
}

// NameProcess has ps, top and pgrep show name, where the program was started through a descriptor and they would show
// its number. Elsewhere than on Linux it does nothing.
func NameProcess(name string) { _ = os.WriteFile("/proc/self/comm", []byte(name), 0) }
