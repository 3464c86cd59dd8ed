// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/meltemi/meltemi/proxy/upstream"
	"github.com/meltemi/meltemi/proxy/upstream/balance"
)

// toCluster explains the choice of an endpoint, and fills in Next.
func (a *Answer) toCluster(ref *upstream.Ref, r *upstream.Request) {
	c := ref.Load()
	if c == nil {
		a.fail(503, Step{
			Stage: StageCluster, Name: ref.Name(),
			Says: "the cluster is not known here (NC): does the service exist, and is it visible to this workload?",
		})
		return
	}
	spec := c.Spec()
	a.add(Step{
		Stage: StageCluster, Name: spec.Name, Says: discoveryNames[spec.Discovery] + ", " + policyNames[spec.Balance.Policy],
		From: origins(spec.Source), Notes: limits(spec),
	})
	choice := c.Explain(r)
	step := Step{Stage: StageEndpoint}
	for i := range choice.Priorities {
		p := &choice.Priorities[i]
		step.Notes = append(step.Notes, standing(i, p))
		for _, h := range p.Hosts {
			step.Considered = append(step.Considered, consider(h, h == choice.Picked))
		}
		for _, h := range p.Ejected {
			if !p.Panic {
				step.Considered = append(step.Considered, consider(h, false))
			}
		}
	}
	if choice.Picked == nil {
		step.Says = "no healthy endpoint (UH)"
		switch {
		case spec.Discovery == upstream.OriginalDst:
			step.Says = "no endpoint (UH): the client dialled the proxy itself, so that where else to go is not known"
		case len(step.Considered) == 0:
			step.Says = "no endpoint (UH): is any workload of the service running, and do its labels fit?"
		}
		a.fail(503, step)
		return
	}
	if len(step.Considered) == 0 { // an original-destination cluster has no list
		step.Considered = append(step.Considered, consider(choice.Picked, true))
	}
	step.Name = choice.Picked.String()
	step.Says = "picked now; the next request may go to another one"
	if len(step.Considered) == 1 {
		step.Says = "the only one"
	}
	a.add(step)
	a.secure(spec, choice.Picked, r)
}

var discoveryNames = map[upstream.Discovery]string{
	upstream.Static: "endpoints given by configuration", upstream.EDS: "endpoints from the control plane",
	upstream.StrictDNS: "all addresses of a DNS name", upstream.LogicalDNS: "the first address of a DNS name",
	upstream.OriginalDst: "the address that was dialled",
}

var policyNames = map[balance.Policy]string{
	balance.RoundRobin: "round robin", balance.LeastRequest: "least request", balance.Random: "random",
	balance.RingHash: "ring hash", balance.Maglev: "maglev", balance.ClusterProvided: "no choice",
}

// noLimit is what control planes send for thresholds that nobody has set.
const noLimit = 1<<32 - 1

func limits(s *upstream.Spec) []string {
	var out []string
	for _, l := range []struct {
		name  string
		value uint32
	}{
		{"connections", s.Breakers.MaxConnections}, {"pending requests", s.Breakers.MaxPending},
		{"requests", s.Breakers.MaxRequests}, {"retries at once", s.Breakers.MaxRetries},
	} {
		if l.value < noLimit {
			out = append(out, fmt.Sprintf("at most %d %s", l.value, l.name))
		}
	}
	if s.Outlier != nil {
		out = append(out, "outlier detection ejects endpoints that fail")
	}
	return out
}

func standing(i int, p *upstream.PriorityChoice) string {
	s := fmt.Sprintf("priority %d: %d %% of requests, %d of %d healthy", i, p.Load+p.DegradedLoad, p.Healthy, p.Total)
	if p.Degraded > 0 {
		s += fmt.Sprintf(", %d degraded", p.Degraded)
	}
	if p.Panic {
		s += "; too few: health is disregarded (panic)"
	}
	return s
}

func consider(h *upstream.Host, picked bool) Considered {
	e := h.Endpoint()
	c := Considered{Name: h.String(), Chosen: picked}
	var why []string
	if workload, ns := workloadOf(e); workload != "" {
		why = append(why, workload+"."+ns)
	}
	if e.Weight > 1 {
		why = append(why, fmt.Sprintf("weight %d", e.Weight))
	}
	switch {
	case h.Ejected():
		why = append(why, "ejected: it failed too often")
	case e.Health == upstream.Unhealthy:
		why = append(why, "unhealthy")
	case e.Health == upstream.Draining:
		why = append(why, "draining")
	case e.Health == upstream.Degraded:
		why = append(why, "degraded")
	}
	c.Why = strings.Join(why, ", ")
	return c
}

// workloadOf reads "name;namespace;canonical name;revision;cluster".
func workloadOf(e *upstream.Endpoint) (name, namespace string) {
	name, rest, _ := strings.Cut(e.Workload, ";")
	namespace, _, _ = strings.Cut(rest, ";")
	return name, namespace
}

// secure explains the connection to the endpoint, and says where that leads.
func (a *Answer) secure(spec *upstream.Spec, h *upstream.Host, r *upstream.Request) {
	t := h.Transport()
	e := h.Endpoint()
	next := &Next{Address: h.String(), Cluster: spec.Name}
	next.Workload, next.Namespace = workloadOf(e)
	step := Step{Stage: StageSecurity, From: origins(spec.Source)}
	switch {
	case t == nil || t.TLS == nil:
		step.Name, step.Says = "plaintext", "the endpoint's proxy does not ask for TLS, or it has none"
		if len(spec.Transports) == 0 {
			step.Says = "the cluster has no TLS settings"
		}
	case t.Mutual:
		step.Name, step.Says = "mutual TLS", "we present the workload's certificate and verify the endpoint's"
	default:
		step.Name, step.Says = "TLS", "we verify the endpoint and present no certificate"
	}
	if t != nil && t.TLS != nil {
		next.TLS, next.Mutual = true, t.Mutual
		if t.Mutual {
			next.Identity = a.identity
		}
		next.SNI = t.TLS.ServerName
		if next.SNI == "" {
			next.SNI = r.SNI
		}
		next.ALPN = t.ALPN
		switch http := r.Version != 0; {
		case http && spec.Protocol == upstream.HTTP2 && t.ALPNHTTP2 != nil:
			next.ALPN = t.ALPNHTTP2
		case http && spec.Protocol != upstream.HTTP2 && t.ALPNHTTP1 != nil:
			next.ALPN = t.ALPNHTTP1
		}
		if next.SNI != "" {
			step.Notes = append(step.Notes, "server name "+next.SNI)
		}
		if len(next.ALPN) > 0 {
			step.Notes = append(step.Notes, "application protocols "+strings.Join(next.ALPN, ", "))
		}
	}
	if t != nil && t.Broken != nil {
		if err := t.Broken(); err != nil {
			step.Notes = append(step.Notes, err.Error())
			step.Says = "no connection can be made now (UF)"
			a.fail(503, step)
			return
		}
	}
	a.add(step)
	a.Outcome, a.Next = Forward, next
	a.Summary = "goes to " + place(next) + " by " + step.Name
}

func place(n *Next) string {
	if n.Workload == "" {
		return n.Address
	}
	return n.Workload + "." + n.Namespace + " at " + n.Address
}

// add appends a step.
func (a *Answer) add(s Step) { a.Steps = append(a.Steps, s) }

// fail appends the step at which the way ends with an error.
func (a *Answer) fail(status int, s Step) { a.end(Refuse, status, s) }

// end appends the last step.
func (a *Answer) end(o Outcome, status int, s Step) {
	s.Fatal = o == Refuse
	a.add(s)
	a.Outcome, a.Status = o, status
	a.Summary = string(s.Stage) + ": " + s.Says
	if status != 0 {
		a.Summary = fmt.Sprintf("%d: %s", status, s.Says)
	}
	a.Next = nil
}
