// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package match

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A Template matches whole paths (envoy.extensions.path.match.uri_template.v3):
// "*" or "{name}" stands for at least one byte other than "/", "**" or
// "{name=**}" for any bytes; everything else stands for itself.
type Template struct {
	source string
	re     *regexp.Regexp
}

// maxVariables is Envoy's limit of named variables in one template.
const maxVariables = 5

// NewTemplate compiles a template.
func NewTemplate(source string) (*Template, error) {
	t := templateParser{rest: source, names: map[string]bool{}}
	if !strings.HasPrefix(source, "/") {
		return nil, fmt.Errorf("path template %q does not begin with /", source)
	}
	if err := t.pattern(false); err != nil {
		return nil, fmt.Errorf("path template %q: %w", source, err)
	}
	re, err := CompileRegex(`(?s)\A` + t.out.String() + `\z`)
	if err != nil {
		return nil, fmt.Errorf("path template %q: %w", source, err)
	}
	return &Template{source: source, re: re}, nil
}

// Match says whether path, which has neither query nor fragment, is matched.
func (t *Template) Match(path string) bool { return t.re.MatchString(path) }

// String returns the source.
func (t *Template) String() string { return t.source }

type templateParser struct {
	rest  string
	out   strings.Builder
	names map[string]bool
	many  bool // a "**" was seen; no operator may follow
}

func (p *templateParser) pattern(inside bool) error {
	for p.rest != "" {
		switch {
		case inside && p.rest[0] == '}':
			return nil
		case strings.HasPrefix(p.rest, "***"):
			return errors.New("three asterisks in a row")
		case strings.HasPrefix(p.rest, "**"):
			if err := p.operator(".*", 2); err != nil {
				return err
			}
			p.many = true
		case p.rest[0] == '*':
			if err := p.operator("[^/]+", 1); err != nil {
				return err
			}
		case p.rest[0] == '{':
			if inside {
				return errors.New("a variable inside a variable")
			}
			if err := p.variable(); err != nil {
				return err
			}
		case p.rest[0] == '}':
			return errors.New("unbalanced }")
		default:
			n := strings.IndexAny(p.rest, "*{}")
			if n < 0 {
				n = len(p.rest)
			}
			p.out.WriteString(regexp.QuoteMeta(p.rest[:n]))
			p.rest = p.rest[n:]
		}
	}
	if inside {
		return errors.New("unbalanced {")
	}
	return nil
}

func (p *templateParser) operator(re string, n int) error {
	if p.many {
		return errors.New("** is not the last operator")
	}
	p.out.WriteString(re)
	p.rest = p.rest[n:]
	return nil
}

// variable reads "{name}" or "{name=pattern}".
func (p *templateParser) variable() error {
	end := strings.IndexAny(p.rest, "=}")
	if end < 0 {
		return errors.New("unbalanced {")
	}
	name, pattern := p.rest[1:end], p.rest[end] == '='
	if name == "" || strings.ContainsAny(name, "/*{") || p.names[name] {
		return fmt.Errorf("variable name %q is empty, invalid or used twice", name)
	}
	if p.names[name] = true; len(p.names) > maxVariables {
		return fmt.Errorf("more than %d variables", maxVariables)
	}
	if !pattern {
		p.rest = "*" + p.rest[end:]
	} else {
		p.rest = p.rest[end+1:]
		if p.rest == "" || p.rest[0] == '}' {
			return fmt.Errorf("variable %q has an empty pattern", name)
		}
	}
	if err := p.pattern(true); err != nil {
		return err
	}
	p.rest = p.rest[1:]
	return nil
}
