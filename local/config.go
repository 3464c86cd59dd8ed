// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/meltemi/meltemi/mesh"
)

// Config is what Up and Run share.
type Config struct {
	// Dir is the state folder. Up and Run find one another by it.
	Dir string
	// RuntimeDir holds what children of other users must read, in capture mode. Empty: a folder below /run.
	RuntimeDir string
	// Program starts our own children; empty means this very program.
	Program string
	// Proxy is the data plane as a program of its own, which takes the flags of
	// "proxy"; it is smaller. Empty: Program runs proxies, too.
	Proxy string
	// ResolvConf is the machine's resolv.conf, for names outside of the mesh.
	ResolvConf string

	Out io.Writer // for people
	Log *slog.Logger
}

// UpConfig is how a mesh is started. Start from UpDefaults.
type UpConfig struct {
	Config
	Paths  []string // configuration; none means the sample's, in Sample
	Sample string   // folder the sample's configuration is written to

	NoCapture bool          // explicit proxies even where capture is possible
	Check     bool          // prove it, then end
	For       time.Duration // end after this long; 0: when asked to
	Traffic   float64       // requests per second that Up makes itself, so that there is something to see

	// Plain writes lines instead of drawing on Terminal.
	Plain       bool
	Terminal    *os.File // where the live view may draw, if it is one; nil: nowhere
	TerminalEnv []string // the environment, which says of which kind it is
	NoColor     bool

	// Insist, once closed, makes Up end at once: it kills its processes, and what else it made is left
	// to the next Up.
	Insist <-chan struct{}

	XDS, Monitoring uint16 // ports of the control plane

	HTTP10 bool // proxies take HTTP/1.0, too

	StartTimeout time.Duration // beyond this the mesh is given up
}

// RunConfig is how a command joins a mesh. Start from RunDefaults.
type RunConfig struct {
	Config
	Service, Version, Namespace string
	// Port is where the command listens; 0 lets Run choose one, told in PORT.
	Port uint16
	// Protocol is what the port carries; Unset: that is found out from the first bytes of each connection. Without
	// capture it must be Unset or some HTTP.
	Protocol mesh.Protocol
	Command  []string
	Env      []string // of the command
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	// Signals are forwarded to the command.
	Signals <-chan os.Signal

	StartTimeout time.Duration
}

func defaults() Config {
	return Config{
		Dir:        ".meltemi",
		ResolvConf: "/etc/resolv.conf",
		Out:        os.Stdout,
		Log:        slog.New(slog.DiscardHandler),
	}
}

// UpDefaults is a mesh nobody has tuned.
func UpDefaults() UpConfig {
	return UpConfig{
		Config:       defaults(),
		Sample:       "meltemi-bookshop",
		Traffic:      4,
		XDS:          15012,
		Monitoring:   15014,
		StartTimeout: 30 * time.Second,
	}
}

// RunDefaults is a command in namespace default, in the mesh of the usual state folder.
func RunDefaults() RunConfig {
	return RunConfig{
		Config:       defaults(),
		Namespace:    "default",
		Env:          nil,
		Stdin:        os.Stdin,
		Stdout:       os.Stdout,
		Stderr:       os.Stderr,
		StartTimeout: 30 * time.Second,
	}
}

func (c *Config) validate() error {
	if c.Dir == "" {
		return fmt.Errorf("no state folder is named: give --dir")
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// An ExitError carries the exit code of the command that Run ran, or a shell's for one that could not be run.
type ExitError struct {
	Code int
	Why  error // what the command could not say itself; nil if it ran
}

func (e *ExitError) Error() string {
	if e.Why != nil {
		return e.Why.Error()
	}
	return fmt.Sprintf("the command ended with exit code %d", e.Code)
}

func (e *ExitError) Unwrap() error { return e.Why }

// loopback is where all listens that nobody else should reach.
func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}
