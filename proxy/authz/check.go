// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package authz

import (
	"github.com/meltemi/meltemi/match"
)

// Check decides. A nil *Rules is no rules at all and allows.
func (r *Rules) Check(f *Facts) Verdict {
	if r == nil {
		return Verdict{Allowed: true}
	}
	for i := range r.policies {
		p := &r.policies[i]
		if matches(p.Permissions, f, r.reading()) && matches(p.Principals, f, r.reading()) {
			return Verdict{Allowed: r.action != Deny, Policy: p.Name, Details: p.details, Logged: r.action == Log}
		}
	}
	return Verdict{Allowed: r.action != Allow, Details: detailsNone}
}

// A reading is how an ambiguous fact is understood.
type reading struct {
	// suspicious: it matches if it does in any way of reading it; otherwise only
	// if it does in all ways.
	suspicious bool
	// granting: a match permits, so that an identity nobody has proved is no
	// reason to be let in.
	granting bool
}

func (r *Rules) reading() reading {
	return reading{suspicious: r.action != Allow, granting: r.action == Allow}
}

func (d reading) opposite() reading {
	d.suspicious = !d.suspicious
	return d
}

func matches(rules []Rule, f *Facts, d reading) bool {
	for i := range rules {
		if rules[i].match(f, d) {
			return true
		}
	}
	return false
}

func (r *Rule) match(f *Facts, d reading) bool {
	switch r.Op {
	case Any:
		return true
	case And:
		for i := range r.Of {
			if !r.Of[i].match(f, d) {
				return false
			}
		}
		return true
	case Or:
		return matches(r.Of, f, d)
	case Not:
		return !r.Of[0].match(f, d.opposite())
	case Header:
		return f.Request != nil && r.matchHeader(f, d.suspicious)
	case Path, Template:
		return f.Request != nil && r.matchPath(f.Request.Path)
	case DestinationIP:
		return r.Prefixes.Contains(f.Local.Addr())
	case DestinationPort:
		return f.Local.IsValid() && r.Ports.Contains(f.Local.Port())
	case ServerName:
		return r.Text.Match(f.SNI)
	case Metadata:
		return r.Metadata.Match(f.Metadata)
	case Authenticated:
		return r.matchPeer(f, d)
	case DirectRemoteIP:
		return r.Prefixes.Contains(f.DirectRemote)
	case RemoteIP:
		return r.Prefixes.Contains(f.Remote)
	}
	return false
}

// matchPath compares what is before query and fragment; a request without a
// path, such as CONNECT, matches nothing.
func (r *Rule) matchPath(target string) bool {
	if target == "" {
		return false
	}
	path, _ := match.PathOf(target)
	if r.Op == Template {
		return r.Template.Match(path)
	}
	return r.Text.Match(path)
}

// matchPeer follows Envoy: URI SANs, else DNS SANs, else the subject. Without a
// verified certificate nobody is authenticated. "Anybody but X" then matches in
// a policy that denies, and does not in one that allows, since it could be X.
func (r *Rule) matchPeer(f *Facts, d reading) bool {
	if anybody(&r.Text) {
		return f.Verified
	}
	if !f.Verified {
		return d.granting && d.suspicious
	}
	for _, san := range f.URISANs {
		if r.Text.Match(san) {
			return true
		}
	}
	for _, san := range f.DNSSANs {
		if r.Text.Match(san) {
			return true
		}
	}
	return r.Text.Match(f.Subject)
}

// anybody says whether a matcher asks only whether there is an identity.
func anybody(m *match.String) bool {
	switch m.Kind() {
	case match.KindAny:
		return true
	case match.KindRegex:
		return m.Value() == ".+" || m.Value() == ".*"
	case match.KindPrefix, match.KindSuffix, match.KindContains:
		return m.Value() == ""
	}
	return false
}

// matchHeader compares a header that came in several lines in every way in which
// a server may read it: each line by itself, and all joined.
func (r *Rule) matchHeader(f *Facts, suspicious bool) bool {
	h := &r.Header
	if pseudo, value, ok := match.PseudoField(f.Request, h.Name); pseudo {
		return h.MatchValue(value, ok)
	}
	fields := f.Request.Header.Fields()
	first := -1
	for i := range fields {
		if !match.EqualFold(fields[i].Name, h.Name) {
			continue
		}
		if first < 0 {
			first = i
			continue
		}
		return r.matchLines(f, suspicious)
	}
	if first < 0 {
		return h.MatchValue("", false)
	}
	return h.MatchValue(fields[first].Value, true)
}

// matchLines returns suspicious if one reading says so, else the opposite, which
// all readings then say.
func (r *Rule) matchLines(f *Facts, suspicious bool) bool {
	fields := f.Request.Header.Fields()
	for i := range fields {
		if match.EqualFold(fields[i].Name, r.Header.Name) && r.Header.MatchValue(fields[i].Value, true) == suspicious {
			return suspicious
		}
	}
	joined, ok := f.Request.Header.Joined(r.Header.Name)
	return r.Header.MatchValue(joined, ok)
}
