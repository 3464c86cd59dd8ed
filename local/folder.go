// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio/freeport"
)

// A Mesh is what a running Up tells others about itself, in mesh.json.
type Mesh struct {
	ID      string `json:"id"`
	PID     int    `json:"pid"`
	Born    string `json:"born"`
	Capture bool   `json:"capture"`

	Paths      []string `json:"paths"`      // configuration, registrations included
	Control    string   `json:"control"`    // xDS and CA, for members
	Monitoring string   `json:"monitoring"` // http://host:port
	Page       string   `json:"page"`       // the application, through the gateway
	Runtime    string   `json:"runtime"`    // folder that members may read

	// In capture mode.
	Subnet   string `json:"subnet,omitempty"`
	Switch   string `json:"switch,omitempty"`   // namespace that joins the others
	Resolver string `json:"resolver,omitempty"` // for names outside of the mesh
}

// folder is the state folder.
type folder struct{ dir string }

func openFolder(dir string) (folder, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return folder{}, fmt.Errorf("state folder: %w", err)
	}
	f := folder{abs}
	for _, d := range []string{f.dir, f.state(), f.registrations(), f.logs(), f.runs(), f.taken()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return f, fmt.Errorf("state folder: %w", err)
		}
	}
	return f, os.Chmod(f.state(), 0o700) // the certificate authority's key is in there
}

func (f folder) state() string          { return filepath.Join(f.dir, "state") }
func (f folder) registrations() string  { return filepath.Join(f.dir, "registrations") }
func (f folder) logs() string           { return filepath.Join(f.dir, "logs") }
func (f folder) runs() string           { return filepath.Join(f.dir, "runs") }  // journals of Run
func (f folder) taken() string          { return filepath.Join(f.dir, "taken") } // one file per address in use, and per member that uses a service
func (f folder) made() string           { return filepath.Join(f.state(), "made.json") }
func (f folder) mesh() string           { return filepath.Join(f.dir, "mesh.json") }
func (f folder) log(name string) string { return filepath.Join(f.logs(), name+".log") }

// id names the folder in network namespaces and the like.
func (f folder) id() string {
	h := sha256.Sum256([]byte(f.dir))
	return hex.EncodeToString(h[:3])
}

// ports are those of members; the folder's have the same ones each time, if they can.
func (f folder) ports() *freeport.Pool {
	h := sha256.Sum256([]byte(f.dir))
	return freeport.New(binary.BigEndian.Uint32(h[:]))
}

// space is the name of a member's network namespace.
func (f folder) space(member string) string { return "meltemi-" + f.id() + "-" + member }

// link is the name of the machine's own interface into the mesh.
func (f folder) link() string { return "meltemi" + f.id() }

// errNotRunning says that no mesh runs on a state folder.
var errNotRunning = errors.New("no mesh runs here")

// Running returns the mesh that runs on the state folder dir.
func Running(dir string) (Mesh, error) {
	f, err := filepath.Abs(dir)
	if err != nil {
		return Mesh{}, err
	}
	return folder{f}.running()
}

func (f folder) running() (Mesh, error) {
	m, err := f.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, fmt.Errorf("state folder %s: %w; start one with \"meltemi up\", or name its folder with --dir", f.dir, errNotRunning)
	case err != nil:
		return m, err
	}
	if !m.process().Alive() {
		return m, fmt.Errorf("state folder %s: %w: the one that did (process %d) is gone; start it again with \"meltemi up\"", f.dir, errNotRunning, m.PID)
	}
	return m, nil
}

// read is what the last Up published.
func (f folder) read() (m Mesh, err error) {
	b, err := os.ReadFile(f.mesh())
	if err != nil {
		return m, fmt.Errorf("state folder: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", f.mesh(), err)
	}
	return m, nil
}

// process is the Up that keeps the mesh.
func (m Mesh) process() made.Thing { return made.Thing{PID: m.PID, Born: m.Born} }

// ended reports whether m has been taken down, or another Up has taken its place. One that was killed serves on.
func (f folder) ended(m Mesh) bool {
	now, err := f.read()
	return errors.Is(err, fs.ErrNotExist) || err == nil && now.process() != m.process()
}

// publish tells others about m; it is among what is undone.
func (f folder) publish(j *made.Journal, m Mesh) error {
	if err := j.Record(made.Thing{Kind: made.File, Name: f.mesh()}); err != nil {
		return err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return made.WriteFile(f.mesh(), append(b, '\n'), 0o644)
}

// clean undoes what an Up, and Runs, that did not end properly left behind.
func (f folder) clean(ctx context.Context, j *made.Journal) error {
	_, err := f.cleanRuns(ctx)
	errs := []error{j.Undo(ctx), j.Sweep(), err}
	for _, dir := range []string{f.dir, f.state(), f.registrations(), f.runs(), filepath.Join(f.dir, "proxies")} {
		errs = append(errs, made.Sweep(dir))
	}
	return errors.Join(errs...)
}

// cleanRuns undoes what Runs that did not end properly left behind, and counts them.
func (f folder) cleanRuns(ctx context.Context) (n int, err error) {
	journals, err := filepath.Glob(filepath.Join(f.runs(), "*.json"))
	for _, path := range journals {
		r, openErr := openRun(path)
		if openErr != nil {
			err = errors.Join(err, openErr)
			continue
		}
		if !r.alive() {
			n++
			err = errors.Join(err, r.journal.Undo(ctx), r.journal.Sweep())
		}
	}
	return n, err
}

// livingRuns counts the Runs that go on.
func (f folder) livingRuns() (n int) {
	journals, _ := filepath.Glob(filepath.Join(f.runs(), "*.json"))
	for _, path := range journals {
		if r, err := openRun(path); err == nil && r.alive() {
			n++
		}
	}
	return n
}

// listed reports whether a living Run's journal lists a network namespace of that name.
func (f folder) listed(space string) bool {
	journals, _ := filepath.Glob(filepath.Join(f.runs(), "*.json"))
	for _, path := range journals {
		r, err := openRun(path)
		if err != nil || !r.alive() {
			continue
		}
		for _, t := range r.journal.Things() {
			if t.Kind == made.Namespace && t.Name == space {
				return true
			}
		}
	}
	return false
}

// runJournal is the journal of a Run. Its first thing is the Run itself.
type runJournal struct{ journal *made.Journal }

func openRun(path string) (runJournal, error) {
	j, err := made.Open(path)
	return runJournal{j}, err
}

// begin notes the Run itself, so that others can tell whether it lives.
func (r runJournal) begin() error {
	return r.journal.Record(made.Thing{Kind: made.Keeper, Name: "run", PID: os.Getpid(), Born: made.Born(os.Getpid())})
}

func (r runJournal) alive() bool {
	for _, t := range r.journal.Things() {
		if t.Kind == made.Keeper {
			return t.Alive()
		}
	}
	return false
}
