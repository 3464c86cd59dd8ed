// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Limits bound what one file may cost. The zero value of a field means its default.
type Limits struct {
	FileBytes     int // size of a file
	DocumentBytes int // size of one document
	Nodes         int // values in one document, aliases followed
	Depth         int // nesting
	Files         int // files in all folders
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.FileBytes, 16<<20)
	set(&l.DocumentBytes, 1<<20)
	set(&l.Nodes, 100_000)
	set(&l.Depth, 64)
	set(&l.Files, 20_000)
	return l
}

// node is a value of a document, with aliases followed.
type node struct {
	line   int // in the file
	kind   nodeKind
	text   string // of a string; of a number as JSON writes it; true or false
	fields []field
	items  []*node
}

// field is one entry of a mapping.
type field struct {
	name  string
	line  int
	value *node
}

type nodeKind uint8

const (
	null nodeKind = iota
	str
	integer
	float
	boolean
	mapping
	list
)

// String is the kind as a message to the author names it.
func (k nodeKind) String() string {
	return [...]string{"nothing", "a string", "a whole number", "a number", "true or false", "a mapping", "a list"}[k]
}

// get is the value of a field, nil if it is not there.
func (n *node) get(name string) *node {
	for i := range n.fields {
		if n.fields[i].name == name {
			return n.fields[i].value
		}
	}
	return nil
}

// fault is what is wrong at one line of a file.
type fault struct {
	line int
	err  error
}

func (f *fault) Error() string { return f.err.Error() }

func faultf(line int, format string, args ...any) *fault {
	return &fault{line, fmt.Errorf(format, args...)}
}

// grow reads the text of a document; nil for one that holds nothing.
func grow(p piece, limits Limits) (*node, *fault) {
	if len(p.text) > limits.DocumentBytes {
		return nil, faultf(p.line, "the document is %d bytes long; at most %d are read", len(p.text), limits.DocumentBytes)
	}
	if !utf8.ValidString(p.text) {
		return nil, faultf(p.line, "the document is not UTF-8")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(p.text), &doc); err != nil {
		return nil, yamlFault(p, err)
	}
	if doc.Kind == 0 || len(doc.Content) == 0 {
		return nil, nil
	}
	g := grower{offset: p.line - 1, limits: limits, left: limits.Nodes, open: map[*yaml.Node]bool{}}
	n, f := g.value(doc.Content[0], 0)
	if f != nil {
		return nil, f
	}
	if n.kind == null {
		return nil, nil
	}
	return n, nil
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\n\s*)?line (\d+): `)

// yamlFault gives the parser's error the line it has in the file.
func yamlFault(p piece, err error) *fault {
	text := err.Error()
	line := p.line
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			line += n - 1
		}
		text = text[len(m[0]):]
	} else {
		text = strings.TrimPrefix(text, "yaml: ")
	}
	if strings.Contains(text, "cannot start any token") && strings.Contains(p.text, "\t") {
		text += " (is there a tab in the indentation? YAML wants spaces)"
	}
	return &fault{line, errors.New("not readable as YAML: " + text)}
}

// grower follows aliases and counts what that costs.
type grower struct {
	offset int
	limits Limits
	left   int
	open   map[*yaml.Node]bool // aliases being followed
}

func (g *grower) value(y *yaml.Node, depth int) (*node, *fault) {
	line := y.Line + g.offset
	if g.left--; g.left < 0 {
		return nil, faultf(line, "the document has more than %d values, aliases followed", g.limits.Nodes)
	}
	if depth > g.limits.Depth {
		return nil, faultf(line, "the document is nested deeper than %d levels", g.limits.Depth)
	}
	switch y.Kind {
	case yaml.AliasNode:
		if g.open[y.Alias] {
			return nil, faultf(line, "the alias *%s contains itself", y.Value)
		}
		g.open[y.Alias] = true
		defer delete(g.open, y.Alias)
		return g.value(y.Alias, depth+1)
	case yaml.MappingNode:
		return g.mapping(y, depth)
	case yaml.SequenceNode:
		n := &node{line: line, kind: list}
		for _, c := range y.Content {
			item, f := g.value(c, depth+1)
			if f != nil {
				return nil, f
			}
			n.items = append(n.items, item)
		}
		return n, nil
	default:
		return scalar(y, line)
	}
}

func (g *grower) mapping(y *yaml.Node, depth int) (*node, *fault) {
	n := &node{line: y.Line + g.offset, kind: mapping}
	seen := make(map[string]int, len(y.Content)/2)
	for i := 0; i+1 < len(y.Content); i += 2 {
		k := y.Content[i]
		line := k.Line + g.offset
		switch {
		case k.Kind != yaml.ScalarNode:
			return nil, faultf(line, "a field's name must be a plain string")
		case k.Tag == "!!merge":
			return nil, faultf(line, "merge keys (<<) are not read; write the fields out")
		}
		if first, dup := seen[k.Value]; dup {
			return nil, faultf(line, "field %q is there twice; the first is on line %d", k.Value, first)
		}
		seen[k.Value] = line
		v, f := g.value(y.Content[i+1], depth+1)
		if f != nil {
			return nil, f
		}
		n.fields = append(n.fields, field{k.Value, line, v})
	}
	return n, nil
}

// scalar reads a single value. Dates are strings, as in Kubernetes.
func scalar(y *yaml.Node, line int) (*node, *fault) {
	n := &node{line: line, kind: str, text: y.Value}
	switch y.ShortTag() {
	case "!!null":
		n.kind, n.text = null, ""
	case "!!bool":
		n.kind, n.text = boolean, strings.ToLower(y.Value)
	case "!!int":
		n.kind = integer
		text := strings.ReplaceAll(y.Value, "_", "")
		if i, err := strconv.ParseInt(text, 0, 64); err == nil {
			n.text = strconv.FormatInt(i, 10)
		} else if u, err := strconv.ParseUint(text, 0, 64); err == nil {
			n.text = strconv.FormatUint(u, 10)
		} else {
			return nil, faultf(line, "the number %s is too large", clip(y.Value))
		}
	case "!!float":
		n.kind = float
		f, err := strconv.ParseFloat(strings.ReplaceAll(y.Value, "_", ""), 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, faultf(line, "%s is no finite number", clip(y.Value))
		}
		n.text = strconv.FormatFloat(f, 'g', -1, 64)
	case "!!str", "!!timestamp":
	default:
		return nil, faultf(line, "the tag %s is not read", clip(y.Tag))
	}
	return n, nil
}

// clip keeps messages short, whatever stands in a file.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
