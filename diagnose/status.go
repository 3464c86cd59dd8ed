// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control"
	"github.com/meltemi/meltemi/control/push"
)

// ErrWrong says that the question was answered, and that something is wrong.
var ErrWrong = errors.New("something is wrong with the mesh")

// A Report is what Status found, as JSON shows it.
type Report struct {
	Problems []control.Problem `json:"problems"`
	// Conditions say what became of each object.
	Conditions []control.Condition `json:"conditions"`
	Proxies    int                 `json:"proxies"`
	// Lagging proxies have not answered yet, Rejecting ones have refused something.
	Lagging   []string         `json:"lagging"`
	Rejecting []push.Rejection `json:"rejecting"`
}

// Status shows what is wrong with the configuration and with proxies. It returns
// ErrWrong if an object is refused or a proxy rejects something.
func (m *Mesh) Status(ctx context.Context) error {
	r, err := m.report(ctx)
	if err != nil {
		return err
	}
	if m.JSON {
		err = m.json(r)
	} else {
		err = m.tell(r)
	}
	if err != nil {
		return err
	}
	if len(r.Rejecting) > 0 || r.errors() > 0 {
		return ErrWrong
	}
	return nil
}

func (m *Mesh) report(ctx context.Context) (*Report, error) {
	r := &Report{Problems: []control.Problem{}, Conditions: []control.Condition{}, Lagging: []string{}, Rejecting: []push.Rejection{}}
	problems, err := m.problems(ctx)
	if err != nil {
		return nil, err
	}
	r.Problems = append(r.Problems, problems...)
	conditions, err := m.conditions(ctx)
	if err != nil {
		return nil, err
	}
	r.Conditions = append(r.Conditions, conditions...)
	clients, err := m.clients(ctx)
	if err != nil {
		return nil, err
	}
	r.Proxies = len(clients)
	for i := range clients {
		c := &clients[i]
		lags := false
		for j := range c.Types {
			t := &c.Types[j]
			lags = lags || t.Waiting > 0
			for _, rejection := range t.Rejected {
				rejection.Client = nodeName(c.Node)
				r.Rejecting = append(r.Rejecting, rejection)
			}
		}
		if lags {
			r.Lagging = append(r.Lagging, nodeName(c.Node))
		}
	}
	return r, nil
}

func (r *Report) errors() (n int) {
	for i := range r.Problems {
		if r.Problems[i].Severity == "error" {
			n++
		}
	}
	return n
}

func (m *Mesh) tell(r *Report) error {
	var b strings.Builder
	for i := range r.Problems {
		b.WriteString(problemLine(&r.Problems[i]) + "\n")
	}
	for i := range r.Conditions {
		c := &r.Conditions[i]
		if c.State == control.StatePending && len(c.Waiting) > 0 {
			fmt.Fprintf(&b, "pending: %s%s is in force on %d of %d proxies; waiting for %s\n", at(c.File, c.Line), c.Object, c.Enforced, c.Concerned, nodeNames(c.Waiting))
		}
		if c.State == control.StateOutdated {
			fmt.Fprintf(&b, "outdated: %s%s: in force is the version of %s\n", at(c.File, c.Line), c.Object, c.Since.Local().Format(time.DateTime))
		}
		if c.State == control.StateUnused && c.Selective {
			fmt.Fprintf(&b, "unused: %s%s decides for no workload whose proxy is connected\n", at(c.File, c.Line), c.Object)
		}
		if c.State == control.StateRejected {
			fmt.Fprintf(&b, "rejected: %s%s is in force on %d of %d proxies\n", at(c.File, c.Line), c.Object, c.Enforced, c.Concerned)
		}
	}
	for i := range r.Rejecting {
		j := &r.Rejecting[i]
		fmt.Fprintf(&b, "rejected: %s refuses %s %s: %s\n", j.Client, shortType(j.TypeURL), j.Name, oneLine(j.Detail))
	}
	if len(r.Lagging) > 0 {
		fmt.Fprintf(&b, "lagging: %s have updates to answer\n", strings.Join(r.Lagging, ", "))
	}
	refused := r.errors()
	switch warnings := len(r.Problems) - refused; {
	case len(r.Problems) == 0:
		b.WriteString("configuration: no problems\n")
	default:
		fmt.Fprintf(&b, "configuration: %s refused, %s\n", count(refused, "object or field", "objects or fields"), count(warnings, "warning", "warnings"))
	}
	fmt.Fprintf(&b, "objects: %s\n", r.states())
	fmt.Fprintf(&b, "proxies: %d connected, %d lagging, %s rejected\n", r.Proxies, len(r.Lagging), count(len(r.Rejecting), "resource", "resources"))
	_, err := m.Out.Write([]byte(b.String()))
	return err
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// states counts objects by what became of them.
func (r *Report) states() string {
	var parts []string
	for _, state := range []string{
		control.StateEnforced, control.StatePending, control.StateRejected, control.StatePartial, control.StateOutdated, control.StateRefused, control.StateUnused,
	} {
		n := 0
		for i := range r.Conditions {
			if r.Conditions[i].State == state {
				n++
			}
		}
		if n > 0 || state == control.StateEnforced {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ToLower(state)))
		}
	}
	return strings.Join(parts, ", ")
}

func nodeNames(ids []string) string {
	var out []string
	for _, id := range ids {
		out = append(out, nodeName(id))
	}
	return strings.Join(out, ", ")
}

// at is "file:line: ", or nothing for an object that no file holds.
func at(file string, line int) string {
	switch {
	case file == "":
		return ""
	case line == 0:
		return shorten(file) + ": "
	}
	return fmt.Sprintf("%s:%d: ", shorten(file), line)
}

// problemLine is file:line: severity: object: field: message.
func problemLine(p *control.Problem) string {
	var parts []string
	for _, s := range []string{p.Severity, p.Object, p.Field, p.Message} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return at(p.File, p.Line) + strings.Join(parts, ": ")
}
