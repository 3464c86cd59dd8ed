// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio/netns"
)

// self starts the running program again. It is reached through the process itself, so that a child of another
// user may execute it even from a folder which that user may not enter (as "go run" makes them).
const self = "/proc/self/exe"

// A command is what to run, where, and as whom.
type command struct {
	name    string
	program string // "" for ourselves
	// open has program opened by us, so that another user may execute it even from
	// a folder which that user may not enter.
	open bool
	args []string
	env  []string
	dir  string
	log  string // file for its output, appended to; "" for the streams below

	stdin          io.Reader
	stdout, stderr io.Writer
	foreground     bool // shares our process group, and with it the terminal

	space   netns.Namespace
	overlay map[string]string // files of its own
	user    *user             // nil: ours
	// lowPorts lets another user than root bind ports below 1024.
	lowPorts bool
}

// user is whom a process runs as.
type user struct{ uid, gid uint32 }

var (
	proxyUser  = user{1337, 1337} // as Istio's; capture rules know it
	nobodyUser = user{65534, 65534}
)

// A process is a command that was started.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; set before done is closed

	thing made.Thing
}

// start records c in j and starts it.
func start(j *made.Journal, c command) (*process, error) {
	marker := make([]byte, 12)
	if _, err := rand.Read(marker); err != nil {
		return nil, err
	}
	t := made.Thing{Kind: made.Process, Name: c.name, Marker: hex.EncodeToString(marker), Group: !c.foreground}
	cmd, closeLog, err := c.build(t.Marker)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	defer closeLog()
	if err := j.Record(t); err != nil {
		return nil, err
	}
	if err := c.space.Start(cmd, c.overlay); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.name, err), j.Forget(t))
	}
	t.PID, t.Born = cmd.Process.Pid, made.Born(cmd.Process.Pid)
	p := &process{name: c.name, cmd: cmd, done: make(chan struct{}), thing: t}
	recordErr := j.Record(t)
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	if recordErr != nil { // nobody would find it
		_ = cmd.Process.Kill()
		<-p.done
		return nil, errors.Join(recordErr, j.Forget(t))
	}
	return p, nil
}

func (c command) build(marker string) (cmd *exec.Cmd, closeLog func(), err error) {
	program := c.program
	if program == "" {
		program = selfProgram()
	}
	closeLog = func() {}
	cmd = exec.Command(program, c.args...)
	if c.program == "" {
		cmd.Args[0] = "meltemi" // what ps shows
	}
	if c.open && runtime.GOOS == "linux" {
		f, err := os.Open(program)
		if err != nil {
			return nil, nil, err
		}
		closeLog = func() { _ = f.Close() }
		cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{f} // the first extra file is 3
	}
	cmd.Env = append(append([]string{}, c.env...), made.MarkerVariable+"="+marker)
	cmd.Dir = c.dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, c.stderr
	c.setAttributes(cmd)
	if c.log != "" {
		f, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			closeLog()
			return nil, nil, err
		}
		cmd.Stdout, cmd.Stderr = f, f
		closeProgram := closeLog
		closeLog = func() { closeProgram(); _ = f.Close() }
	}
	return cmd, closeLog, nil
}

// alive reports whether the process runs.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ended says how the process ended, for people.
func (p *process) ended() string {
	if p.err == nil {
		return "it ended by itself"
	}
	return p.err.Error()
}

// stop ends the process and strikes it from j.
func (p *process) stop(ctx context.Context, j *made.Journal) error {
	err := j.UndoOne(ctx, p.thing)
	if err == nil {
		<-p.done
	}
	return err
}
