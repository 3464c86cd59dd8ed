// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

const (
	originalPath  = "x-envoy-original-path"
	originalHost  = "x-envoy-original-host"
	forwardedHost = "x-forwarded-host"
)

// Rewrite makes r what the upstream gets: header operations first, then the
// authority, then the path, as Envoy does. It is called once per exchange, when
// the request has been admitted. HostAuto is left to the caller, who knows the
// endpoint: see SetAuthority.
func (t *Table) Rewrite(d *Decision, r *message.Request, x Expander) {
	if d.Kind != ToCluster {
		return
	}
	t.RequestHeaders(d, &r.Header, x)
	f := d.Route.Forward
	if host := d.host(r); host != "" {
		SetAuthority(r, host, f.Rewrite.ForwardedHost)
	}
	if path, ok := d.path(r, x); ok && path != r.Path {
		r.Header.Set(originalPath, r.Path)
		r.Path = path
	}
}

// SetAuthority changes the authority and keeps the old one in
// x-envoy-original-host and, if asked to, x-forwarded-host.
func SetAuthority(r *message.Request, host string, forwarded bool) {
	if host == r.Authority {
		return
	}
	if forwarded && r.Authority != "" {
		if old, ok := r.Header.Joined(forwardedHost); ok && old != "" {
			if !lastIs(old, r.Authority) {
				r.Header.Set(forwardedHost, old+","+r.Authority)
			}
		} else {
			r.Header.Set(forwardedHost, r.Authority)
		}
	}
	r.Header.Set(originalHost, r.Authority)
	r.Authority = host
}

// lastIs says whether the last element of a list is s.
func lastIs(list, s string) bool {
	if len(list) < len(s) || list[len(list)-len(s):] != s {
		return false
	}
	i := len(list) - len(s)
	return i == 0 || list[i-1] == ',' || list[i-1] == ' '
}

// host returns the new authority, or "".
func (d *Decision) host(r *message.Request) string {
	f := d.Route.Forward
	if h := f.Clusters[d.Choice].HostLiteral; h != "" {
		return h
	}
	switch {
	case f.Rewrite.HostLiteral != "":
		return f.Rewrite.HostLiteral
	case f.Rewrite.HostHeader != "":
		return r.Header.Get(f.Rewrite.HostHeader)
	case d.Route.hostRegex != nil:
		path, _ := match.PathOf(r.Path)
		return d.Route.hostRegex.apply(path)
	}
	return ""
}

// path returns the new path with its query.
func (d *Decision) path(r *message.Request, x Expander) (string, bool) {
	rw, e := &d.Route.Forward.Rewrite, d.Route
	switch {
	case r.Path == "":
		return "", false
	case rw.Prefix != "":
		return e.replacePrefix(r.Path, rw.Prefix), true
	case e.regex != nil:
		path, _ := match.PathOf(r.Path)
		return e.regex.apply(path) + r.Path[len(path):], true
	case rw.Path != "":
		path, _ := match.PathOf(r.Path)
		if e.pathFormat < 0 {
			return rw.Path + r.Path[len(path):], true
		}
		var buf [256]byte
		if p := clean(x.Expand(buf[:0], e.pathFormat)); len(p) > 0 && p[0] == '/' {
			return p + r.Path[len(path):], true
		}
	}
	return "", false
}

// replacePrefix replaces what the route's condition matched: the prefix, or the
// whole path.
func (e *Entry) replacePrefix(target, with string) string {
	n := len(e.Match.Path.Value)
	switch e.Match.Path.Kind {
	case PathPrefix, PathSegments:
	default:
		path, _ := match.PathOf(target)
		n = len(path)
	}
	return with + target[n:]
}
