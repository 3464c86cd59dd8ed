// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"strings"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

// An Expander writes what a value with %COMMANDS% stands for in this exchange.
type Expander interface {
	// Expand appends the value of Table.Formats[slot] to dst.
	Expand(dst []byte, slot int) []byte
}

// ops are compiled HeaderOps.
type ops struct {
	remove  []string
	add     []op
	formats int // how many of add have one
}

type op struct {
	name, value string
	format      int // slot in Table.Formats; -1: value is literal
	action      Append
	keepEmpty   bool
}

func (c *compiler) bothOps(requests, responds *HeaderOps) (q, s *ops, err error) {
	if q, err = c.ops(requests); err != nil {
		return nil, nil, fmt.Errorf("request headers: %w", err)
	}
	if s, err = c.ops(responds); err != nil {
		return nil, nil, fmt.Errorf("response headers: %w", err)
	}
	return q, s, nil
}

// ops returns nil if there is nothing to do.
func (c *compiler) ops(cfg *HeaderOps) (*ops, error) {
	if len(cfg.Add) == 0 && len(cfg.Remove) == 0 {
		return nil, nil
	}
	o := &ops{remove: cfg.Remove, add: make([]op, len(cfg.Add))}
	for _, name := range cfg.Remove {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	for i, h := range cfg.Add {
		if err := checkName(h.Name); err != nil {
			return nil, err
		}
		if strings.ContainsAny(h.Value, "\r\n\x00") {
			return nil, fmt.Errorf("the value of %q has a line break or a zero byte", h.Name)
		}
		a := op{name: h.Name, value: h.Value, format: -1, action: h.Action, keepEmpty: h.KeepEmpty}
		if h.Action > OverwriteExists {
			return nil, fmt.Errorf("header %q: append action %d is not known", h.Name, h.Action)
		}
		if strings.Contains(h.Value, "%") {
			if literal, ok := unescape(h.Value); ok {
				a.value = literal
			} else {
				a.format = intern(&c.table.formats, c.formats, h.Value)
				o.formats++
			}
		}
		o.add[i] = a
	}
	return o, nil
}

// unescape turns "%%" into "%"; ok is false if there are commands.
func unescape(s string) (literal string, ok bool) {
	if strings.Contains(strings.ReplaceAll(s, "%%", ""), "%") {
		return "", false
	}
	return strings.ReplaceAll(s, "%%", "%"), true
}

// checkName refuses what is no field name, and what routes may not change
// because routing and policies depend on it.
func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("a header has no name")
	}
	if name[0] == ':' || match.EqualFold(name, "host") {
		return fmt.Errorf("header %q cannot be changed here: use a host or path rewrite", name)
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return fmt.Errorf("header name %q has a character that no header name has", name)
		}
	}
	return nil
}

// apply changes h. All values are worked out before the first is set.
func (o *ops) apply(h *message.Header, x Expander) {
	if o == nil {
		return
	}
	var few [4]string
	values := few[:0]
	if o.formats > 0 {
		var buf [256]byte
		for i := range o.add {
			if o.add[i].format >= 0 {
				values = append(values, clean(x.Expand(buf[:0], o.add[i].format)))
			}
		}
	}
	for _, name := range o.remove {
		h.Delete(name)
	}
	for i := range o.add {
		a := &o.add[i]
		value := a.value
		if a.format >= 0 {
			value, values = values[0], values[1:]
		}
		if value != "" || a.keepEmpty {
			a.set(h, value)
		}
	}
}

func (a *op) set(h *message.Header, value string) {
	switch a.action {
	case AppendOrAdd:
		h.Add(a.name, value)
	case AddIfAbsent:
		if !h.Has(a.name) {
			h.Add(a.name, value)
		}
	case OverwriteOrAdd:
		h.Set(a.name, value)
	case OverwriteExists:
		if h.Has(a.name) {
			h.Set(a.name, value)
		}
	}
}

// clean makes a field value of what a command returned: hostile bytes in a path
// or SNI must not become a new header line.
func clean(b []byte) string {
	for i, c := range b {
		if c == '\r' || c == '\n' || c == 0 {
			b[i] = ' '
		}
	}
	return string(b)
}

// levels returns the operations that concern d in the order of their application.
func (t *Table) levels(d *Decision, of func(*Table, *Host, *Entry, *choice) [4]*ops) [4]*ops {
	var c *choice
	if d.Kind == ToCluster {
		c = &d.Route.choices[d.Choice]
	}
	l := of(t, d.Host, d.Route, c)
	if t.cfg.MostSpecificWins {
		l[0], l[1], l[2], l[3] = l[3], l[2], l[1], l[0]
	}
	return l
}

func requestOps(t *Table, h *Host, e *Entry, c *choice) [4]*ops {
	l := [4]*ops{nil, e.requests, h.requests, t.requests}
	if c != nil {
		l[0] = c.requests
	}
	return l
}

func responseOps(t *Table, h *Host, e *Entry, c *choice) [4]*ops {
	l := [4]*ops{nil, e.responds, h.responds, t.responds}
	if c != nil {
		l[0] = c.responds
	}
	return l
}

// RequestHeaders applies the header operations of d to a request: those of the
// weighted cluster, the route, the virtual host, the table (or the other way
// round: MostSpecificWins). Without a Route it does nothing.
func (t *Table) RequestHeaders(d *Decision, h *message.Header, x Expander) {
	if d.Route == nil {
		return
	}
	for _, o := range t.levels(d, requestOps) {
		o.apply(h, x)
	}
}

// ResponseHeaders does the same to a response, ours included.
func (t *Table) ResponseHeaders(d *Decision, h *message.Header, x Expander) {
	if d.Route == nil {
		return
	}
	for _, o := range t.levels(d, responseOps) {
		o.apply(h, x)
	}
}
