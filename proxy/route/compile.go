// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/meltemi/meltemi/match"
)

// A Table is a compiled Config; immutable.
type Table struct {
	cfg                *Config
	clusters           []string
	formats            []string
	slots              int
	hosts              []Host
	domains            domains
	requests, responds *ops
}

// A Host is a virtual host of a Table.
type Host struct {
	*VirtualHost
	entries            []Entry
	requests, responds *ops
}

// An Entry is a route of a Table.
type Entry struct {
	*Route
	// Mirrors are the slots in Table.Clusters of the mirrors' clusters, in the
	// order of Forward.Mirrors.
	Mirrors []int

	slot     int // of its first choice
	choices  []choice
	total    uint64 // of the weights; 0 for one choice
	prefix   match.String
	template *match.Template

	requests, responds *ops
	pathFormat         int // slot of Rewrite.Path if it has commands; -1
	regex, hostRegex   *rewriter
	redirectRegex      *rewriter
	hash               []hasher
}

type choice struct {
	cluster            int // slot
	weight             uint64
	requests, responds *ops
}

// Config returns what t was made from; not to be changed.
func (t *Table) Config() *Config { return t.cfg }

// Clusters returns the names of the clusters that t sends to, each once.
func (t *Table) Clusters() []string { return t.clusters }

// Formats returns the header values and paths with %COMMANDS%, each once.
func (t *Table) Formats() []string { return t.formats }

// Slots returns how many different Decision.Slot there are.
func (t *Table) Slots() int { return t.slots }

// Walk calls visit for every slot, with its virtual host, by index, and route and, if the
// route has weighted clusters, the choice.
func (t *Table) Walk(visit func(slot, host int, route *Route, choice int)) {
	for i := range t.hosts {
		h := &t.hosts[i]
		for j := range h.entries {
			e := &h.entries[j]
			for c := range max(1, len(e.choices)) {
				visit(e.slot+c, i, e.Route, c)
			}
		}
	}
}

// Limits of one table.
const (
	maxHosts  = 200000
	maxRoutes = 1000000
)

// Compile checks cfg and prepares it. It keeps what cfg points to. Errors name
// the virtual host and the route.
func Compile(cfg *Config) (*Table, error) {
	if len(cfg.VirtualHosts) > maxHosts {
		return nil, fmt.Errorf("%d virtual hosts, more than %d", len(cfg.VirtualHosts), maxHosts)
	}
	c := compiler{
		table:    &Table{cfg: cfg, hosts: make([]Host, len(cfg.VirtualHosts))},
		clusters: map[string]int{}, formats: map[string]int{},
	}
	var err error
	if c.table.requests, c.table.responds, err = c.bothOps(&cfg.RequestHeaders, &cfg.ResponseHeaders); err != nil {
		return nil, err
	}
	for i, h := range cfg.VirtualHosts {
		if err := c.host(&c.table.hosts[i], h); err != nil {
			return nil, fmt.Errorf("virtual host %q: %w", h.Name, err)
		}
		for _, domain := range h.Domains {
			if other, err := c.table.domains.add(domain, int32(i)); err != nil {
				if other >= 0 {
					err = fmt.Errorf("%w in virtual host %q", err, cfg.VirtualHosts[other].Name)
				}
				return nil, fmt.Errorf("virtual host %q: %w", h.Name, err)
			}
		}
	}
	c.table.domains.sort()
	return c.table, nil
}

type compiler struct {
	table             *Table
	clusters, formats map[string]int
	routes            int
}

func (c *compiler) cluster(name string) (int, error) {
	if name == "" {
		return 0, errors.New("the cluster has no name")
	}
	return intern(&c.table.clusters, c.clusters, name), nil
}

func intern(list *[]string, index map[string]int, s string) int {
	i, ok := index[s]
	if !ok {
		i = len(*list)
		index[s] = i
		*list = append(*list, s)
	}
	return i
}

func (c *compiler) host(h *Host, cfg *VirtualHost) (err error) {
	h.VirtualHost = cfg
	if len(cfg.Domains) == 0 {
		return errors.New("it has no domains")
	}
	if c.routes += len(cfg.Routes); c.routes > maxRoutes {
		return fmt.Errorf("more than %d routes", maxRoutes)
	}
	if h.requests, h.responds, err = c.bothOps(&cfg.RequestHeaders, &cfg.ResponseHeaders); err != nil {
		return err
	}
	h.entries = make([]Entry, len(cfg.Routes))
	for i := range cfg.Routes {
		if err := c.route(&h.entries[i], &cfg.Routes[i], cfg); err != nil {
			return fmt.Errorf("route %d (%q): %w", i, cfg.Routes[i].Name, err)
		}
	}
	return nil
}

func (c *compiler) route(e *Entry, r *Route, h *VirtualHost) (err error) {
	e.Route, e.slot, e.pathFormat = r, c.table.slots, -1
	if err := e.compilePath(&r.Match.Path); err != nil {
		return err
	}
	if f := r.Match.Fraction; f != nil && f.Per == 0 {
		return errors.New("a fraction of nothing")
	}
	if e.requests, e.responds, err = c.bothOps(&r.RequestHeaders, &r.ResponseHeaders); err != nil {
		return err
	}
	actions := 0
	if r.Forward != nil {
		actions++
		err = c.forward(e, r.Forward, h)
	}
	if r.Redirect != nil {
		actions++
		err = c.redirect(e, r.Redirect)
	}
	if r.Direct != nil {
		actions++
		if r.Direct.Status < 200 || r.Direct.Status > 599 {
			err = fmt.Errorf("direct response with status %d", r.Direct.Status)
		}
	}
	if err != nil {
		return err
	}
	if actions != 1 {
		return fmt.Errorf("%d actions, want exactly one of forward, redirect and direct response", actions)
	}
	c.table.slots += max(1, len(e.choices))
	return nil
}

func (e *Entry) compilePath(p *PathMatch) (err error) {
	v := p.Value
	switch p.Kind {
	case PathPrefix:
		e.prefix = match.Prefix(v)
	case PathExact:
		e.prefix = match.Exact(v)
	case PathSegments:
		if len(v) < 2 || v[0] != '/' || strings.HasSuffix(v, "/") || strings.ContainsAny(v, "?#") {
			return fmt.Errorf("path_separated_prefix %q must begin with /, be longer, and have neither / at its end nor ? nor #", v)
		}
		e.prefix = match.Prefix(v)
	case PathRegex:
		e.prefix, err = match.Regex(v)
	case PathTemplate:
		e.template, err = match.NewTemplate(v)
	case PathConnect:
	default:
		return fmt.Errorf("path condition %d is not known", p.Kind)
	}
	if err == nil && p.IgnoreCase {
		e.prefix = e.prefix.IgnoreCase()
	}
	return err
}

func (c *compiler) forward(e *Entry, f *Forward, h *VirtualHost) error {
	if len(f.Clusters) == 0 {
		return errors.New("it forwards to no cluster")
	}
	e.choices = make([]choice, len(f.Clusters))
	for i := range f.Clusters {
		w, ch := &f.Clusters[i], &e.choices[i]
		var err error
		if ch.cluster, err = c.cluster(w.Cluster); err != nil {
			return err
		}
		if ch.requests, ch.responds, err = c.bothOps(&w.RequestHeaders, &w.ResponseHeaders); err != nil {
			return fmt.Errorf("cluster %q: %w", w.Cluster, err)
		}
		ch.weight = uint64(w.Weight)
		e.total += ch.weight
	}
	switch {
	case len(e.choices) == 1:
		e.total = 0
	case e.total == 0:
		return errors.New("the weights of its clusters sum to 0")
	case e.total > math.MaxUint32:
		return fmt.Errorf("the weights of its clusters sum to %d, more than %d", e.total, uint32(math.MaxUint32))
	}
	if f.Retry == nil && h.Retry != nil {
		f.Retry = h.Retry
	}
	if f.Mirrors == nil && h.Mirrors != nil {
		f.Mirrors = h.Mirrors
	}
	if f.Hash == nil && h.Hash != nil {
		f.Hash = h.Hash
	}
	for i := range f.Mirrors {
		slot, err := c.cluster(f.Mirrors[i].Cluster)
		if err != nil {
			return fmt.Errorf("mirror: %w", err)
		}
		if fr := f.Mirrors[i].Fraction; fr != nil && fr.Per == 0 {
			return errors.New("mirror: a fraction of nothing")
		}
		e.Mirrors = append(e.Mirrors, slot)
	}
	if err := c.rewrite(e, &f.Rewrite); err != nil {
		return err
	}
	return e.compileHash(f.Hash)
}

func (c *compiler) rewrite(e *Entry, r *Rewrite) (err error) {
	if count(r.Prefix != "", r.Regex != nil, r.Path != "") > 1 {
		return errors.New("more than one of prefix_rewrite, regex_rewrite and path_rewrite")
	}
	if count(r.HostLiteral != "", r.HostHeader != "", r.HostRegex != nil, r.HostAuto) > 1 {
		return errors.New("more than one way to rewrite the host")
	}
	if e.regex, err = newRewriter(r.Regex); err != nil {
		return fmt.Errorf("regex_rewrite: %w", err)
	}
	if e.hostRegex, err = newRewriter(r.HostRegex); err != nil {
		return fmt.Errorf("host_rewrite_path_regex: %w", err)
	}
	if strings.Contains(r.Path, "%") {
		e.pathFormat = intern(&c.table.formats, c.formats, r.Path)
	}
	return nil
}

func (c *compiler) redirect(e *Entry, r *Redirect) (err error) {
	if count(r.Path != "", r.HasPrefix, r.Regex != nil) > 1 {
		return errors.New("redirect: more than one of path, prefix and regex rewrite")
	}
	if r.Port > math.MaxUint16 {
		return fmt.Errorf("redirect: port %d", r.Port)
	}
	switch r.Status {
	case 301, 302, 303, 307, 308:
	default:
		return fmt.Errorf("redirect: status %d", r.Status)
	}
	if e.redirectRegex, err = newRewriter(r.Regex); err != nil {
		return fmt.Errorf("redirect: regex_rewrite: %w", err)
	}
	return nil
}

func count(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

// A rewriter is a compiled RegexRewrite.
type rewriter struct {
	re *regexp.Regexp
	// parts of the substitution: text, or the group that stands there.
	parts []part
}

type part struct {
	text  string
	group int // -1: text
}

func newRewriter(r *RegexRewrite) (*rewriter, error) {
	if r == nil {
		return nil, nil
	}
	re, err := match.CompileRegex(r.Pattern)
	if err != nil {
		return nil, err
	}
	w := &rewriter{re: re}
	rest := r.Substitution
	for rest != "" {
		i := strings.IndexByte(rest, '\\')
		if i < 0 {
			w.parts = append(w.parts, part{rest, -1})
			break
		}
		if i > 0 {
			w.parts = append(w.parts, part{rest[:i], -1})
		}
		if i+1 == len(rest) {
			return nil, fmt.Errorf("substitution %q ends with a backslash", r.Substitution)
		}
		switch ch := rest[i+1]; {
		case ch == '\\':
			w.parts = append(w.parts, part{`\`, -1})
		case ch >= '0' && ch <= '9':
			if int(ch-'0') > re.NumSubexp() {
				return nil, fmt.Errorf("substitution %q names group %c, the expression has %d", r.Substitution, ch, re.NumSubexp())
			}
			w.parts = append(w.parts, part{"", int(ch - '0')})
		default:
			return nil, fmt.Errorf("substitution %q: after a backslash comes a digit or another backslash", r.Substitution)
		}
		rest = rest[i+2:]
	}
	return w, nil
}

// apply replaces every match in s.
func (w *rewriter) apply(s string) string {
	var b strings.Builder
	last := 0
	for _, m := range w.re.FindAllStringSubmatchIndex(s, -1) {
		b.WriteString(s[last:m[0]])
		for _, p := range w.parts {
			switch {
			case p.group < 0:
				b.WriteString(p.text)
			case m[2*p.group] >= 0:
				b.WriteString(s[m[2*p.group]:m[2*p.group+1]])
			}
		}
		last = m[1]
	}
	b.WriteString(s[last:])
	return b.String()
}
