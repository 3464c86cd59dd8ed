// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"strconv"
	"strings"

	"github.com/meltemi/meltemi/match"
	"github.com/meltemi/meltemi/message"
)

// Location returns the status and the Location of a redirect. Kind must be
// ToLocation.
func (d *Decision) Location(r *message.Request) (status int, location string) {
	if d.Route == nil { // the virtual host requires TLS
		return 301, "https://" + r.Authority + r.Path // as it is, port included, as Envoy
	}
	red := d.Route.Redirect
	return red.Status, red.location(r, d.Route.redirectPath(r))
}

func (red *Redirect) location(r *message.Request, path string) string {
	scheme := r.Scheme
	if red.Scheme != "" {
		scheme = red.Scheme
	}
	port := ""
	if red.Port != 0 {
		port = ":" + strconv.Itoa(int(red.Port))
	}
	host := red.Host
	if host == "" {
		host = keptHost(r, scheme, port)
	}
	return scheme + "://" + host + port + path
}

// keptHost is the request's authority. Its port goes if another is given, and if
// it is the usual one of a scheme that changes.
func keptHost(r *message.Request, scheme, port string) string {
	host := WithoutPort(r.Authority)
	old := r.Authority[len(host):]
	if port != "" || scheme != r.Scheme && (r.Scheme == "http" && old == ":80" || r.Scheme == "https" && old == ":443") {
		return host
	}
	return r.Authority
}

func (e *Entry) redirectPath(r *message.Request) string {
	red := e.Redirect
	path, _ := match.PathOf(r.Path)
	rest := r.Path[len(path):] // query and fragment
	if red.StripQuery {
		rest = ""
	}
	switch {
	case red.Path != "":
		// A query of its own takes the place of the request's.
		if strings.Contains(red.Path, "?") {
			return red.Path
		}
		return red.Path + rest
	case red.HasPrefix:
		path = e.replacePrefix(path, red.Prefix)
	case e.redirectRegex != nil:
		path = e.redirectRegex.apply(path)
	}
	return path + rest
}
