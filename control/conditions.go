// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control/envoy/sight"
	"github.com/meltemi/meltemi/control/intent"
	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// The states of an object, the worst that holds.
const (
	StateRefused  = "Refused"  // no version of it passed its check: nothing of it is in force, but what stands in for a security policy
	StateRejected = "Rejected" // a proxy refuses what was made of it
	StateOutdated = "Outdated" // the newest version is refused, the last good one is in force
	StatePartial  = "Partial"  // every proxy has confirmed, but warnings name fields that are not in force, as they are not supported yet
	StatePending  = "Pending"  // some proxies have not confirmed yet
	StateEnforced = "Enforced" // every proxy that it concerns has confirmed
	StateUnused   = "Unused"   // it concerns no proxy that is connected, or has no effect, as a warning says
)

// A Condition is what became of an object: one line of /debug/conditions.
type Condition struct {
	Object string `json:"object"` // Kind/namespace/name
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	State  string `json:"state"`
	// Since is when the version that is in force came; zero if none is.
	Since time.Time `json:"since,omitzero"`
	// Concerned proxies have something made of the object; where Enforced, all of it.
	Concerned int `json:"concerned"`
	Enforced  int `json:"enforced"`
	// Selective: the object is for workloads that it selects.
	Selective bool             `json:"selective,omitempty"`
	Waiting   []string         `json:"waiting,omitempty"` // nodes
	Rejecting []push.Rejection `json:"rejecting,omitempty"`
	Problems  []Problem        `json:"problems,omitempty"`

	partial bool // once it is enforced
}

// Conditions says what became of every object that people write, by object.
func (c *Control) Conditions() []Condition {
	return c.conditions(func(source.Key) bool { return true })
}

// conditions says it of those wanted.
func (c *Control) conditions(wanted func(source.Key) bool) []Condition {
	var out []Condition
	clients := c.clients()
	var sel selection
	c.graph.Read(func(ctx *derive.Context) {
		sel = c.selection(ctx, clients)
		for _, k := range c.written(ctx) {
			if !wanted(k) {
				continue
			}
			s := c.statuses.Of.Get(ctx, k)
			at := c.objects.Where(ctx, source.Origin{Object: k})
			cond := Condition{Object: k.String(), File: at.File, Line: at.Line, Problems: lines(s.Problems), partial: s.Partial}
			switch {
			case !s.InForce:
				cond.State = StateRefused
			case !s.Accepted:
				cond.State = StateOutdated
			case s.Idle:
				cond.State = StateUnused
			}
			if s.InForce {
				cond.Since = c.gatherer.Since(k)
			}
			out = append(out, cond)
		}
	})
	nodes := map[string]string{}
	for client := range clients {
		nodes[client.ID] = client.Node.GetId()
	}
	for i := range out {
		c.enforcement(&out[i], nodes, sel)
	}
	return out
}

// enforcement adds what the proxies made of the object. It is asked outside of
// any reading, since the hub reads by itself.
func (c *Control) enforcement(cond *Condition, nodes map[string]string, sel selection) {
	k, ok := parseKey(cond.Object)
	if !ok || cond.State == StateRefused || cond.State == StateUnused {
		return
	}
	e := c.hub.Enforcement(derive.Origin{Table: string(k.Kind), Key: k}, c.holds(k), sel.concerns(k))
	switch k.Kind {
	case source.KindAuthorizationPolicy, source.KindPeerAuthentication, source.KindTelemetry, source.KindSidecar:
		cond.Selective = true
	}
	cond.Concerned, cond.Enforced, cond.Rejecting = e.Concerned, e.Enforced, e.Rejecting
	for _, id := range e.Waiting {
		cond.Waiting = append(cond.Waiting, nodes[id])
	}
	for i := range cond.Rejecting {
		cond.Rejecting[i].Client = nodes[cond.Rejecting[i].Client]
	}
	switch {
	case len(e.Rejecting) > 0:
		cond.State = StateRejected
	case cond.State == StateOutdated:
	case len(e.Waiting) > 0:
		cond.State = StatePending
	case e.Concerned == 0 && e.Settled:
		cond.State = StateUnused
	case e.Concerned == 0:
		cond.State = StatePending
	case cond.partial:
		cond.State = StatePartial
	default:
		cond.State = StateEnforced
	}
}

// clients are the connected proxies, as selectors see them.
func (c *Control) clients() map[*xds.Client]intent.Subject {
	all := map[*xds.Client]intent.Subject{}
	for _, client := range c.hub.Clients() {
		if parsed, err := sight.ParseClient(client.Node); err == nil {
			all[client] = parsed.Subject
		}
	}
	return all
}

// A selection says for which proxies objects are that select workloads. All that may select a workload is read for its
// proxy, so that having been read says nothing.
type selection struct {
	clients map[*xds.Client]intent.Subject
	chosen  map[source.Key]map[intent.Subject]bool
	rules   map[source.Key]mesh.Labels // selectors of DestinationRules
}

func (c *Control) selection(ctx *derive.Context, clients map[*xds.Client]intent.Subject) selection {
	s := selection{clients: clients, chosen: map[source.Key]map[intent.Subject]bool{}, rules: map[source.Key]mesh.Labels{}}
	choose := func(k source.Key, subject intent.Subject) {
		if s.chosen[k] == nil {
			s.chosen[k] = map[intent.Subject]bool{}
		}
		s.chosen[k][subject] = true
	}
	done := map[intent.Subject]bool{}
	for _, subject := range clients {
		if done[subject] {
			continue
		}
		done[subject] = true
		choose(c.wishes.Sidecar.Get(ctx, subject).Object, subject)
		for _, p := range c.wishes.Authorization.Get(ctx, subject).Policies {
			choose(p.Object, subject)
		}
		for _, origins := range [][]source.Origin{c.wishes.PeerAuth.Get(ctx, subject).Origins, c.wishes.AccessLog.Get(ctx, subject).Origins} {
			for _, o := range origins {
				choose(o.Object, subject)
			}
		}
	}
	for _, k := range c.objects.DestinationRules.Keys(ctx) {
		if o, ok := c.objects.DestinationRules.Get(ctx, k); ok && len(o.Spec.GetWorkloadSelector().GetMatchLabels()) > 0 {
			s.rules[k] = o.Spec.WorkloadSelector.MatchLabels
		}
	}
	return s
}

// concerns is for push.Hub.Enforcement.
func (s selection) concerns(k source.Key) func(*xds.Client) bool {
	switch k.Kind {
	case source.KindAuthorizationPolicy, source.KindTelemetry, source.KindSidecar:
		return func(client *xds.Client) bool { return s.chosen[k][s.clients[client]] }
	case source.KindPeerAuthentication:
		// Who calls those that it is for must know of it.
		return func(*xds.Client) bool { return len(s.chosen[k]) > 0 }
	case source.KindDestinationRule:
		if selector := s.rules[k]; selector != nil {
			return func(client *xds.Client) bool {
				subject := s.clients[client]
				return subject.Namespace == k.Namespace && selector.Match(subject.Labels())
			}
		}
	}
	return nil
}

// written lists the objects that people write: those in force, and those of which
// no version is.
func (c *Control) written(ctx *derive.Context) []source.Key {
	o := c.objects
	keys := slices.Concat(
		o.Services.Keys(ctx), o.VirtualServices.Keys(ctx), o.DestinationRules.Keys(ctx), o.Gateways.Keys(ctx), o.ServiceEntries.Keys(ctx),
		o.WorkloadEntries.Keys(ctx), o.Sidecars.Keys(ctx), o.PeerAuthentications.Keys(ctx), o.AuthorizationPolicies.Keys(ctx),
		o.Telemetries.Keys(ctx))
	for _, about := range o.Problems.Keys(ctx) {
		problems, _ := o.Problems.Get(ctx, about)
		for i := range problems {
			if k := problems[i].Object; !k.IsZero() {
				keys = append(keys, k)
			}
		}
	}
	slices.SortFunc(keys, source.Key.Compare)
	return slices.Compact(keys)
}

// holds are the results that proxies hold and that were made from the object.
func (c *Control) holds(k source.Key) []*derive.Hold {
	o := c.objects
	switch k.Kind {
	case source.KindService:
		return o.Services.Holds(k)
	case source.KindVirtualService:
		return o.VirtualServices.Holds(k)
	case source.KindDestinationRule:
		return o.DestinationRules.Holds(k)
	case source.KindGateway:
		return o.Gateways.Holds(k)
	case source.KindServiceEntry:
		return o.ServiceEntries.Holds(k)
	case source.KindWorkloadEntry:
		return o.WorkloadEntries.Holds(k)
	case source.KindSidecar:
		return o.Sidecars.Holds(k)
	case source.KindPeerAuthentication:
		return o.PeerAuthentications.Holds(k)
	case source.KindAuthorizationPolicy:
		return o.AuthorizationPolicies.Holds(k)
	case source.KindTelemetry:
		return o.Telemetries.Holds(k)
	}
	return nil
}

// conditionsPage is all conditions, or ?object=KIND/NAMESPACE/NAME's.
func (c *Control) conditionsPage(w http.ResponseWriter, r *http.Request) {
	object := r.URL.Query().Get("object")
	all := c.conditions(func(k source.Key) bool { return object == "" || strings.EqualFold(k.String(), object) })
	if all == nil {
		all = []Condition{}
	}
	writeJSON(w, all)
}
