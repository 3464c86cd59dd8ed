// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy/explain"
)

// A Question is a request that somebody might make.
type Question struct {
	From    string // workload, or gateway
	Method  string
	URL     string
	Headers []explain.Header
	// Random stands for chance; nil draws.
	Random *uint64
}

// An Explanation is both halves of a call, as JSON shows it.
type Explanation struct {
	From   string          `json:"from"`
	Caller *explain.Answer `json:"caller"`
	To     string          `json:"to,omitempty"`
	// Callee is what the callee's proxy says; nil if it cannot be asked.
	Callee *explain.Answer `json:"callee,omitempty"`
	// Unasked says why Callee is missing although the request would arrive there.
	Unasked string `json:"unasked,omitempty"`
}

// Explain asks the caller's proxy what would become of the request, then the
// callee's, and tells the story.
func (m *Mesh) Explain(ctx context.Context, q Question) error {
	from, err := m.find(q.From)
	if err != nil {
		return err
	}
	e := Explanation{From: from.Name()}
	e.Caller, err = from.explain(ctx, explain.Query{
		Side: explain.Outbound, Method: q.Method, URL: q.URL, Headers: q.Headers, Random: q.Random,
	})
	if err != nil {
		return err
	}
	if next := e.Caller.Next; next != nil {
		m.follow(ctx, &e, q, next)
	}
	if m.JSON {
		return m.json(&e)
	}
	return m.story(ctx, &e, q)
}

// follow asks the proxy that the request arrives at.
func (m *Mesh) follow(ctx context.Context, e *Explanation, q Question, next *explain.Next) {
	workload, namespace := next.Workload, next.Namespace
	if workload == "" { // an address that was dialled as such, and passed through
		var err error
		if workload, namespace, err = m.at(ctx, next.Address); err != nil {
			e.Unasked = "who is at " + next.Address + " cannot be found out: " + err.Error()
			return
		}
		if workload == "" {
			e.Unasked = "no proxy of the mesh has the address " + next.Address + ", so nobody there enforces anything"
			return
		}
	}
	to := m.workload(workload, namespace)
	if to == nil {
		e.Unasked = "no proxy of " + workload + "." + namespace + " is known on this machine"
		return
	}
	e.To = to.Name()
	query := explain.Query{
		Side: explain.Inbound, Method: next.Method, URL: next.URL(q.URL), Headers: next.Headers, Address: next.Address, Random: q.Random,
		Caller: explain.Caller{TLS: next.TLS, SNI: next.SNI, ALPN: next.ALPN},
	}
	if next.Mutual {
		query.Caller.Identity = next.Identity
	}
	answer, err := to.explain(ctx, query)
	if err != nil {
		e.Unasked = err.Error()
		return
	}
	e.Callee = answer
}

// at finds the workload whose sidecar is connected to the control plane from an address, "ip:port"; "" for none.
func (m *Mesh) at(ctx context.Context, address string) (workload, namespace string, err error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", "", nil // a socket of some other sort
	}
	clients, err := m.clients(ctx)
	if err != nil {
		return "", "", err
	}
	for i := range clients {
		n, err := mesh.ParseNodeID(clients[i].Node)
		if err == nil && n.Type == mesh.Sidecar && n.Addr.Unmap() == to.Addr().Unmap() {
			return n.Name, string(n.Namespace), nil
		}
	}
	return "", "", nil
}

// explain asks p.
func (p *Proxy) explain(ctx context.Context, q explain.Query) (*explain.Answer, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	b, err := p.page(ctx, "POST", "/explain", body)
	if err != nil {
		return nil, fmt.Errorf("%w (only Meltemi's proxies explain)", err)
	}
	var a explain.Answer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("proxy %s: explain: %w", p.Name(), err)
	}
	return &a, nil
}
