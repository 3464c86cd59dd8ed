// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control/source"
	"google.golang.org/protobuf/types/known/durationpb"
)

// checker collects what is wrong with one object.
type checker struct {
	problems []source.Problem
}

// at is a field's path: at("spec.http[%d]", 1).
func at(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func (c *checker) errorf(field, format string, args ...any) {
	c.problems = append(c.problems, source.Problem{Field: field, Severity: source.Error, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) warnf(field, format string, args ...any) {
	c.problems = append(c.problems, source.Problem{Field: field, Severity: source.Warning, Message: fmt.Sprintf(format, args...)})
}

// partf warns of a field that Meltemi does not implement, without refusing the rest of the object for that.
func (c *checker) partf(field, format string, args ...any) {
	c.warnf(field, format, args...)
	c.problems[len(c.problems)-1].Partial = true
}

// unsupported refuses a field that Meltemi does not implement.
func (c *checker) unsupported(field string) { c.errorf(field, "is not supported yet") }

// refuse refuses each of fields that is set.
func (c *checker) refuse(path string, fields map[string]bool) {
	for _, f := range sortedKeys(fields) {
		if fields[f] {
			c.unsupported(path + "." + f)
		}
	}
}

var (
	labelForm  = regexp.MustCompile(`^[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?$`)
	nameForm   = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)
	wordForm   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)
	headerForm = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")
)

// host checks a DNS name, a short name, or, where allowed, a wildcard or an address.
func (c *checker) host(field, h string, wildcard, addr bool) bool {
	if h == "" {
		c.errorf(field, "the host is missing")
		return false
	}
	if _, err := netip.ParseAddr(h); err == nil {
		if !addr {
			c.errorf(field, "%q is an address; a name is wanted", h)
		}
		return addr
	}
	name := strings.TrimSuffix(h, ".")
	if strings.HasPrefix(name, "*") {
		if !wildcard {
			c.errorf(field, "%q is a wildcard; a name is wanted", h)
			return false
		}
		if name == "*" {
			return true
		}
		rest, ok := strings.CutPrefix(name, "*.")
		if !ok {
			c.errorf(field, "%q is no host: a wildcard stands for whole labels, as in *.example.com", h)
			return false
		}
		name = rest
	}
	if len(name) > 253 || !validLabels(strings.ToLower(name)) {
		c.errorf(field, "%q is no host name: labels of letters, digits and dashes, joined by dots", h)
		return false
	}
	return true
}

func validLabels(name string) bool {
	for l := range strings.SplitSeq(name, ".") {
		if len(l) > 63 || !labelForm.MatchString(l) {
			return false
		}
	}
	return true
}

// port checks a port number; zero is allowed where nothing need be said.
func (c *checker) port(field string, p uint32, optional bool) {
	if p > 65535 || p == 0 && !optional {
		c.errorf(field, "a port is a number from 1 to 65535")
	}
}

// atLeast checks a duration that may be missing.
func (c *checker) atLeast(field string, d *durationpb.Duration, least time.Duration) {
	if d == nil {
		return
	}
	if err := d.CheckValid(); err != nil {
		c.errorf(field, "is out of range")
		return
	}
	switch v := d.AsDuration(); {
	case v < least:
		c.errorf(field, "%v is too short; the least is %v", v, least)
	case v%time.Millisecond != 0:
		c.errorf(field, "%v is finer than a millisecond", v)
	}
}

func (c *checker) millisecond(field string, d *durationpb.Duration) {
	c.atLeast(field, d, time.Millisecond)
}

func (c *checker) percent(field string, p float64) {
	if !(p >= 0 && p <= 100) {
		c.errorf(field, "a percentage is a number from 0 to 100")
	}
}

// regex checks an expression; limit is the most bytes it may have, zero for none.
func (c *checker) regex(field, expr string) {
	const limit = 1024
	if expr == "" {
		c.errorf(field, "the expression is empty")
	} else if len(expr) > limit {
		c.errorf(field, "the expression is longer than %d bytes", limit)
	} else if _, err := regexp.Compile(expr); err != nil {
		c.errorf(field, "is no RE2 expression: %v", err)
	}
}

func (c *checker) cidr(field, s string) {
	if _, err := ParsePrefix(s); err != nil {
		c.errorf(field, "%q is neither an address nor a CIDR", s)
	}
}

// ParsePrefix reads a CIDR or an address.
func ParsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Unmap().Prefix(a.Unmap().BitLen())
}

func (c *checker) headerName(field, name string) {
	if !headerForm.MatchString(strings.TrimPrefix(name, ":")) {
		c.errorf(field, "%q is no header name", name)
	}
}

// labels checks a selector or a set of labels.
func (c *checker) labels(field string, labels map[string]string) {
	for _, k := range sortedKeys(labels) {
		v := labels[k]
		name := k[strings.LastIndexByte(k, '/')+1:]
		if len(name) > 63 || !wordForm.MatchString(name) {
			c.errorf(field, "%q is no label key", k)
		}
		if strings.Contains(v, "*") {
			c.errorf(field, "%q has a wildcard, which selectors do not know", v)
		} else if v != "" && (len(v) > 63 || !wordForm.MatchString(v)) {
			c.errorf(field, "%q is no label value", v)
		}
	}
}

// exportTo checks a list of namespaces to which something is visible.
func (c *checker) exportTo(list []string) {
	for i, e := range list {
		field := at("spec.exportTo[%d]", i)
		switch {
		case slices.Contains(list[:i], e):
			c.errorf(field, "%q is there twice", e)
		case e == "*" || e == "~":
			if len(list) > 1 {
				c.errorf(field, "%q cannot be combined with others", e)
			}
		case e != "." && !nameForm.MatchString(e):
			c.errorf(field, "%q is no namespace; . * and ~ are the own one, all and none", e)
		}
	}
}

// selector checks matchLabels.
func (c *checker) selector(field string, labels map[string]string) {
	c.labels(field, labels)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
