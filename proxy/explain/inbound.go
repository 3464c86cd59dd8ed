// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

// inbound: somebody dials the workload at r.dst.
func (w World) inbound(ctx context.Context, a *Answer, r *request) error {
	if !r.dst.IsValid() {
		return errors.New("address: say which address of the workload is called")
	}
	remote, err := callerAddress(r.Caller.Address)
	if err != nil {
		return err
	}
	l := w.takes(r.dst)
	if l == nil {
		a.end(Bypass, 0, Step{Stage: StageListener, Says: fmt.Sprintf("no listener of the proxy takes connections to %s: they reach the workload itself", r.dst)})
		return nil
	}
	if w.deaf(a, l) {
		return nil
	}
	a.add(Step{Stage: StageListener, Name: l.Name, Says: "takes connections to " + r.dst.String(), From: origins(l.Source)})
	facts := r.facts(r.dst)
	facts.Remote, facts.DirectRemote = remote, remote
	conn := &filter.Conn{
		Direction: l.Direction, Listener: l.Name, Local: r.dst, Remote: remote, DirectRemote: remote, SNI: facts.SNI,
	}
	if l.OriginalDst {
		conn.OriginalDst = r.dst
	}
	chain := a.choose(l, &facts)
	if chain == nil {
		return nil
	}
	conn.Chain = chain.Name
	if !a.greet(chain, r, conn, l) {
		return nil
	}
	return w.through(ctx, a, r, chain, conn)
}

// takes finds the listener for connections to dst: one bound there, else one that
// takes whatever was captured on its way in.
func (w World) takes(dst netip.AddrPort) *config.Listener {
	var captured *config.Listener
	for _, l := range w.Snapshot.Listeners {
		if l.Direction != filter.Inbound || !l.Bind {
			continue
		}
		for _, a := range l.Addrs {
			if a.IP.Port() == dst.Port() && (a.IP.Addr() == dst.Addr() || a.IP.Addr().IsUnspecified()) {
				return l
			}
		}
		if l.OriginalDst {
			captured = l
		}
	}
	return captured
}

func callerAddress(text string) (netip.AddrPort, error) {
	if text == "" {
		return netip.AddrPort{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 0), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return ap, fmt.Errorf("caller.address: %w", err)
	}
	return ap, nil
}

// greet explains the TLS handshake, and draws out who the caller is.
func (a *Answer) greet(chain *config.FilterChain, r *request, conn *filter.Conn, l *config.Listener) bool {
	step := Step{Stage: StageTLS, From: origins(l.Source)}
	switch {
	case chain.TLS == nil && r.Caller.TLS:
		step.Name, step.Says = "passed through", "the proxy does not look into this TLS: the workload itself answers it"
	case chain.TLS == nil:
		step.Name, step.Says = "plaintext", "the caller is not authenticated"
	case chain.TLS.Ready != nil && chain.TLS.Ready() != nil:
		step.Says = "the handshake fails: " + chain.TLS.Ready().Error()
		a.fail(0, step)
		return false
	case r.Caller.Identity == "" && chain.TLS.RequireClientCert:
		step.Says = "the handshake fails: a client certificate is required and the caller has none"
		a.fail(0, step)
		return false
	case r.Caller.Identity == "":
		step.Name, step.Says = "TLS", "the caller shows no certificate and is not authenticated"
	default:
		conn.Peer = filter.Certificate{URISANs: []string{r.Caller.Identity}}
		conn.Mutual = !chain.TLS.AcceptUntrusted
		step.Name, step.Says = "mutual TLS", "the caller is "+r.Caller.Identity
		step.Notes = []string{"that its certificate can be verified is taken for granted here"}
	}
	a.add(step)
	return true
}
