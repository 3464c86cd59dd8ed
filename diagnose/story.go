// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/proxy/explain"
)

// A story is an explanation being told.
type story struct {
	strings.Builder
	places *places
}

// story tells an explanation: each step with what decided it, where that is
// written, and what was considered.
func (m *Mesh) story(ctx context.Context, e *Explanation, q Question) error {
	s := &story{places: m.places()}
	what := cmp.Or(q.Method, "GET") + " " + q.URL
	if strings.HasPrefix(q.URL, "tcp:") {
		what = q.URL
	}
	s.line(0, "%s from %s", what, e.From)
	s.steps(ctx, e.Caller)
	if e.Callee != nil {
		s.line(0, "")
		s.line(0, "arriving at %s", e.To)
		s.steps(ctx, e.Callee)
	}
	s.line(0, "")
	s.line(0, "%s", s.verdict(e))
	if e.Unasked != "" {
		s.line(0, "The callee's side is not explained: %s.", e.Unasked)
	}
	_, err := m.Out.Write([]byte(s.String()))
	return err
}

func (s *story) line(depth int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if text != "" {
		s.WriteString(strings.Repeat("  ", depth))
	}
	s.WriteString(text + "\n")
}

// stageWidth aligns what follows the names of stages.
const stageWidth = len("listener")

func (s *story) steps(ctx context.Context, a *explain.Answer) {
	for i := range a.Steps {
		step := &a.Steps[i]
		what := step.Name
		if step.Says != "" && what != "" {
			what += ": "
		}
		s.line(1, "%-*s  %s", stageWidth, step.Stage, what+step.Says)
		inner := 1 + stageWidth/2 + 1
		for _, o := range step.From {
			if i > 0 && slices.Contains(a.Steps[i-1].From, o) || i > 1 && step.Stage == explain.StageSecurity {
				continue // said just now
			}
			s.line(inner, "from %s", s.places.tell(ctx, []string{o}))
		}
		if step.Stage != explain.StageChain { // how a chain is found is long, and mostly dull
			for _, n := range step.Notes {
				s.line(inner, "%s", n)
			}
		}
		s.considered(ctx, step, inner)
	}
}

// considered lists what was looked at, unless nothing of it lost.
func (s *story) considered(ctx context.Context, step *explain.Step, depth int) {
	if !slices.ContainsFunc(step.Considered, func(c explain.Considered) bool { return !c.Chosen }) {
		return
	}
	for i := range step.Considered {
		c := &step.Considered[i]
		mark := "-"
		if c.Chosen {
			mark = "*"
		}
		text := mark + " " + c.Name
		if c.Why != "" {
			text += ": " + c.Why
		}
		if at := s.places.short(ctx, c.From); at != "" && step.Stage != explain.StageChain {
			text += " [" + at + "]"
		}
		s.line(depth, "%s", text)
	}
}

// verdict is how it ends, in one sentence.
func (s *story) verdict(e *Explanation) string {
	last := e.Caller
	who := e.From
	if e.Callee != nil {
		last, who = e.Callee, e.To
	}
	switch last.Outcome {
	case explain.Forward:
		if e.Callee != nil {
			return "The request is delivered: " + who + " lets it in."
		}
		return "The request " + last.Summary + "."
	case explain.Refuse:
		if last.Status != 0 {
			return fmt.Sprintf("The request is refused: the proxy of %s answers %s.", who, last.Summary)
		}
		return fmt.Sprintf("The connection is refused by the proxy of %s: %s.", who, last.Summary)
	case explain.Bypass:
		return "The mesh has no part in it: " + last.Steps[len(last.Steps)-1].Says + "."
	}
	return fmt.Sprintf("The proxy of %s answers by itself, %s.", who, last.Summary)
}
