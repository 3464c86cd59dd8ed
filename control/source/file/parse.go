// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package file

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/mesh"
)

// document is what one document of a file came to. Lines count from the document's first, so that a document
// which moves inside its file is not read again.
type document struct {
	text       string
	key        source.Key   // of the object it claims; zero if it claims none
	hint       *source.Key  // if the object cannot be told: what is known of its key
	unreadable bool         // no YAML at all; hint is a guess
	entry      source.Entry // nil if there is none or it is refused
	rest       source.Entry // of one that is refused: what could be read; if only its name could be guessed, nothing else
	lines      []source.FieldLine
	problems   []source.Problem
	members    []*document // of a List
}

// parser reads the documents of one source.
type parser struct {
	namespace mesh.Namespace
	limits    Limits
}

// parse reads one document. It never fails: what is wrong is in problems.
func (p *parser) parse(text string) *document {
	doc := &document{text: text}
	root, f := grow(piece{text, 1}, p.limits)
	if f != nil {
		guess := p.salvage(text)
		doc.hint, doc.unreadable, doc.rest = &guess, true, blank(guess)
		doc.problems = []source.Problem{{
			Object: guess, Place: source.Place{Line: f.line}, Severity: source.Error, Message: f.Error(),
		}}
		return doc
	}
	if root == nil {
		return doc
	}
	if root.kind == mapping && text0(root.get("kind")) == "List" && root.get("items") != nil {
		for _, item := range root.get("items").items {
			doc.members = append(doc.members, p.object(item, &document{text: text}))
		}
		return doc
	}
	return p.object(root, doc)
}

// object reads one object into doc.
func (p *parser) object(root *node, doc *document) *document {
	d := &decoder{}
	head, gk, ok := p.head(d, root)
	if r, read := kinds[gk]; read && ok {
		doc.entry = r.read(d, head, root.get("spec"), root.line)
	} else if read {
		doc.rest = r.read(&decoder{}, head, root.get("spec"), root.line)
	}
	doc.claim(head.Key, gk)
	astray := head.Name == ""
	for i := range d.problems {
		if head.Name != "" && head.Kind != "" {
			d.problems[i].Object = head.Key
		}
		astray = astray || d.problems[i].Field == "metadata.namespace"
		if d.problems[i].Severity == source.Error && doc.entry != nil {
			doc.entry, doc.rest = nil, doc.entry
		}
	}
	if astray {
		doc.rest = nil // it would stand for another object
	}
	slices.SortFunc(d.lines, func(a, b source.FieldLine) int { return cmp.Compare(a.Field, b.Field) })
	doc.lines = append([]source.FieldLine{{Field: "", Line: root.line}}, d.lines...)
	doc.problems = d.problems
	return doc
}

// claim sets the object that doc is about, or what is known of it.
func (doc *document) claim(k source.Key, gk groupKind) {
	if _, read := kinds[gk]; read && k.Name != "" {
		doc.key = k
		return
	}
	if gk.kind != "" {
		if _, _, known := refuse(gk); known {
			return // an object of another sort
		}
	}
	doc.hint = &k
}

// head reads everything but the spec. ok is false if the object cannot be read further; the key holds
// what could be read of it.
func (p *parser) head(d *decoder, root *node) (head source.Object[struct{}], gk groupKind, ok bool) {
	if root.kind != mapping {
		d.fail(root.line, "", "%s stands where an object with apiVersion, kind and metadata is wanted", root.kind)
		return head, gk, false
	}
	group, version := splitVersion(text0(root.get("apiVersion")))
	gk = groupKind{group, text0(root.get("kind"))}
	r, read := kinds[gk]
	switch {
	case gk.kind == "" || version == "":
		d.fail(root.line, "", "apiVersion and kind must say what this is")
	case !read:
		severity, why, _ := refuse(gk)
		d.fail(root.line, "kind", "%s", why)
		d.problems[len(d.problems)-1].Severity = severity
	}
	if read {
		head.Kind = source.Kind(gk.kind)
	}
	head.Namespace = p.namespace
	of := d
	if !read {
		of = &decoder{} // one problem is enough
	}
	for _, f := range root.fields {
		of.at(f.name, f.line)
		switch f.name {
		case "apiVersion", "kind", "metadata", "spec", "status":
		default:
			of.fail(f.line, f.name, "there is no such field beside apiVersion, kind, metadata, spec and status")
		}
	}
	p.metadata(of, root, &head)
	if !read {
		return head, gk, false
	}
	if head.Name == "" {
		d.fail(root.line, "metadata.name", "the object has no name")
		return head, gk, false
	}
	if !slices.Contains(r.versions, version) {
		d.fail(root.line, "apiVersion", "%s is none of the versions of %s: %s", clip(version), gk.kind, strings.Join(r.versions, ", "))
		return head, gk, false
	}
	return head, gk, true
}

// bookkeeping are the fields of metadata that Kubernetes keeps for itself. They mean nothing here.
var bookkeeping = []string{"creationTimestamp", "resourceVersion", "uid", "generation", "managedFields",
	"ownerReferences", "finalizers", "selfLink", "generateName", "deletionTimestamp", "deletionGracePeriodSeconds"}

func (p *parser) metadata(d *decoder, root *node, head *source.Object[struct{}]) {
	meta := root.get("metadata")
	if meta == nil || meta.kind != mapping {
		d.fail(root.line, "metadata", "the object has no metadata")
		return
	}
	for _, f := range meta.fields {
		at := "metadata." + f.name
		d.at(at, f.line)
		switch f.name {
		case "name":
			head.Name = d.word(f.value, at)
		case "namespace":
			if ns := d.word(f.value, at); ns != "" {
				head.Namespace = mesh.Namespace(ns)
			}
		case "labels":
			head.Labels = d.strings(f.value, at)
		case "annotations":
			head.Annotations = d.strings(f.value, at)
		default:
			if !slices.Contains(bookkeeping, f.name) {
				d.fail(f.line, at, "there is no such field")
			}
		}
	}
}

// nameForm is what Kubernetes allows as a name (DNS-1123 subdomain), not looking at dots too closely.
var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// word reads a name.
func (d *decoder) word(n *node, path string) string {
	switch {
	case n.kind == null:
	case n.kind != str:
		d.fail(n.line, path, "%s stands where a string is wanted (put it in quotes)", n.kind)
	case n.text != "" && (len(n.text) > 253 || !nameForm.MatchString(n.text)):
		d.fail(n.line, path, "%q is no name: lower-case letters, digits, dashes and dots, at most 253 of them", clip(n.text))
	default:
		return n.text
	}
	return ""
}

// strings reads a mapping of strings; nil for an empty one.
func (d *decoder) strings(n *node, path string) mesh.Labels {
	if n.kind == null {
		return nil
	}
	if n.kind != mapping {
		d.fail(n.line, path, "%s stands where a mapping is wanted", n.kind)
		return nil
	}
	var m mesh.Labels
	for _, f := range n.fields {
		at := path + "[" + f.name + "]"
		d.at(at, f.line)
		if f.value.kind != str && f.value.kind != null {
			d.fail(f.line, at, "%s stands where a string is wanted (put it in quotes)", f.value.kind)
			continue
		}
		if m == nil {
			m = mesh.Labels{}
		}
		m[f.name] = f.value.text
	}
	return m
}

func text0(n *node) string {
	if n == nil || n.kind != str {
		return ""
	}
	return n.text
}

var (
	salvageKind = regexp.MustCompile(`(?m)^kind:[ \t]*["']?([A-Za-z]+)`)
	salvageMeta = regexp.MustCompile(`(?m)^metadata:[ \t]*\n((?:(?:[ \t].*)?\n)*)`)
	salvageName = regexp.MustCompile(`(?m)^[ \t]{1,8}name:[ \t]*["']?([-a-z0-9.]+)`)
	salvageNS   = regexp.MustCompile(`(?m)^[ \t]{1,8}namespace:[ \t]*["']?([-a-z0-9.]+)`)
	// The same for metadata in braces on one line.
	salvageFlow     = regexp.MustCompile(`(?m)^metadata:[ \t]*\{(.*)`)
	salvageFlowName = regexp.MustCompile(`(?:^|,)[ \t]*name:[ \t]*["']?([-a-z0-9.]+)`)
	salvageFlowNS   = regexp.MustCompile(`(?:^|,)[ \t]*namespace:[ \t]*["']?([-a-z0-9.]+)`)
)

// salvage guesses which object a document is meant to be that is no YAML: most slips of the
// pen leave the lines with kind and name as they were.
func (p *parser) salvage(text string) source.Key {
	text += "\n"
	kind := salvageKind.FindStringSubmatch(text)
	names, namespaces, meta := salvageName, salvageNS, salvageMeta.FindStringSubmatch(text)
	if meta == nil {
		names, namespaces, meta = salvageFlowName, salvageFlowNS, salvageFlow.FindStringSubmatch(text)
	}
	if kind == nil || meta == nil {
		return source.Key{}
	}
	name := names.FindStringSubmatch(meta[1])
	if name == nil {
		return source.Key{}
	}
	k := source.Key{Kind: source.Kind(kind[1]), Namespace: p.namespace, Name: name[1]}
	if ns := namespaces.FindStringSubmatch(meta[1]); ns != nil {
		k.Namespace = mesh.Namespace(ns[1])
	}
	return k
}

// blank is an object of which nothing is known but its key; nil if its kind is not read.
func blank(k source.Key) source.Entry {
	for gk, r := range kinds {
		if gk.kind == string(k.Kind) && k.Name != "" {
			return r.read(&decoder{}, source.Object[struct{}]{Key: k}, nil, 1)
		}
	}
	return nil
}
