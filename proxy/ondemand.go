// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/demand"
	"github.com/meltemi/meltemi/proxy/explain"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/listen"
	"github.com/meltemi/meltemi/telemetry"
)

// newDemand makes the directory of a proxy that takes its configuration on demand.
func (p *Proxy) newDemand() (err error) {
	if !p.cfg.Node.OnDemand || p.cfg.Control == "" {
		return nil
	}
	cfg := demand.Defaults()
	cfg.Subscriptions, cfg.Store, cfg.Network = subscriptions{p}, p.store, p.cfg.Node.Network
	cfg.Log = p.cfg.Logs.Logger("demand")
	cfg.Changed = func() {
		if p.keeper != nil {
			p.keeper.Touch()
		}
	}
	if p.demand, err = demand.New(cfg); err != nil {
		return err
	}
	p.registry.Collect(p.countDemand)
	return nil
}

// subscriptions are those of the xDS client, which is made last.
type subscriptions struct{ p *Proxy }

func (s subscriptions) Subscribe(typeURL string, names ...string) {
	s.p.asks.Subscribe(typeURL, names...)
}

func (s subscriptions) Unsubscribe(typeURL string, names ...string) {
	s.p.asks.Unsubscribe(typeURL, names...)
}

// onDemandChain is the chain of s that learns of destinations; nil if there is none.
func onDemandChain(s *config.Snapshot) *config.FilterChain {
	for _, l := range s.Listeners {
		for _, c := range l.Chains {
			if c.OnDemand != nil {
				return c
			}
		}
		if l.Default != nil && l.Default.OnDemand != nil {
			return l.Default
		}
	}
	return nil
}

// wanted is where a connection is to go.
func wanted(facts *filter.Conn) netip.AddrPort {
	if facts.OriginalDst.IsValid() {
		return facts.OriginalDst
	}
	return facts.Local
}

// serveOnDemand finds out where a connection goes and brings it to the chain
// that conducts it.
func (p *Proxy) serveOnDemand(conn net.Conn, facts *filter.Conn, chain *config.FilterChain, drain <-chan struct{}) {
	if p.demand == nil {
		p.log.Error("a listener learns of destinations on demand, but this proxy was not started for that (--on-demand)", "listener", facts.Listener)
		return
	}
	peeked, ok := conn.(*netio.Peeked)
	own := p.store.Snapshot().Listener(facts.Listener)
	if !ok || own == nil {
		return // the listener has gone, or terminates TLS, which no outbound one does
	}
	dst := wanted(facts)
	found, err := p.demand.Lookup(context.Background(), dst)
	if err != nil {
		p.refuse(peeked, facts, chain, own, err)
		return
	}
	defer func() { found.Done() }()
	if l := found.Listener(); l != nil {
		p.serveBy(peeked, facts, l, drain)
		return
	}
	if found.Known && found.HTTP == nil && found.Protocol == demand.TCP {
		p.conduct(conn, facts, found.TCP, drain, nil) // the server may speak first: nothing to wait for
		return
	}
	var seen config.ConnFacts
	if found.Known && found.Protocol == demand.HTTP {
		seen, err = listen.Await(peeked, own, facts, drain)
	} else {
		seen, err = listen.Inspect(peeked, own, facts)
	}
	if err != nil {
		p.unmatched(own, facts, err)
		return
	}
	http := seen.Transport != "tls" && len(seen.Protocols) > 0
	if !found.Known {
		if host := calledHost(peeked, own, &seen, http); host != "" {
			byName, err := p.demand.LookupHost(context.Background(), host, dst.Port())
			if err != nil {
				p.refuse(peeked, facts, chain, own, err)
				return
			}
			found.Done()
			found = byName
		}
	}
	to := found.TCP
	if found.HTTP != nil && (http || found.Protocol == demand.HTTP && seen.Transport != "tls" && mayBeHTTP(peeked.Buffered())) {
		to = found.HTTP
	}
	p.conduct(conn, facts, to, drain, nil)
}

// mayBeHTTP says whether b, which is too short to tell, may begin a request: a
// client that opens a connection and calls later has sent nothing yet.
func mayBeHTTP(b []byte) bool { return len(b) == 0 || 'A' <= b[0] && b[0] <= 'Z' }

// serveBy conducts a connection by the chains of l.
func (p *Proxy) serveBy(conn *netio.Peeked, facts *filter.Conn, l *config.Listener, drain <-chan struct{}) {
	facts.Listener = l.Name
	seen, err := listen.Inspect(conn, l, facts)
	if err != nil {
		p.unmatched(l, facts, err)
		return
	}
	c := l.Choose(&seen)
	switch {
	case c == nil:
		p.unmatched(l, facts, listen.ErrNoChain)
	case c.TLS != nil || c.OnDemand != nil:
		p.unmatched(l, facts, errors.New("an outbound filter chain that terminates TLS or asks for destinations cannot be used on demand"))
	default:
		facts.Chain = c.Name
		p.conduct(conn, facts, c, drain, nil)
	}
}

// refuse ends a connection whose destination could not be found out. A client
// that speaks HTTP is told why.
func (p *Proxy) refuse(conn *netio.Peeked, facts *filter.Conn, chain *config.FilterChain, own *config.Listener, err error) {
	var f *fault.Fault
	if !errors.As(err, &f) {
		f = &fault.Fault{Side: fault.Mesh, Kind: fault.Internal, Err: err}
	}
	p.log.Debug("a connection is refused", "destination", wanted(facts), "error", f)
	if seen, err := listen.Inspect(conn, own, facts); err == nil && seen.Transport != "tls" && len(seen.Protocols) > 0 {
		p.l7.ServeConn(conn, facts, func() *config.HTTP { return chain.OnDemand.HTTP }, config.NoRoutes(f), closed)
		return
	}
	p.l4.Refuse(facts, p.demand.Default(), f)
}

// closed drains a connection from the start: one answer, then it ends.
var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// calledHost is the name that the first bytes say: a Host header or an SNI; "" if none.
func calledHost(conn *netio.Peeked, own *config.Listener, seen *config.ConnFacts, http bool) string {
	name := seen.SNI
	if http {
		b, err := conn.Sniff(own.InspectTimeout, func(b []byte) bool { return bytes.Contains(b, []byte("\r\n\r\n")) })
		if err != nil {
			return ""
		}
		name = hostHeader(b)
	}
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil || len(name) > 253 || strings.ContainsAny(name, "/ ") {
		return ""
	}
	return strings.ToLower(name)
}

// hostHeader finds the host header in the head of an HTTP/1 request, which may
// be incomplete. Whoever reads the request checks it; this is a hint.
func hostHeader(b []byte) string {
	for {
		i := bytes.Index(b, []byte("\r\n"))
		if i < 0 {
			return ""
		}
		b = b[i+2:]
		name, rest, ok := bytes.Cut(b, []byte(":"))
		if !ok {
			return ""
		}
		if !strings.EqualFold(string(name), "host") {
			continue
		}
		value, _, complete := bytes.Cut(rest, []byte("\r\n"))
		if !complete {
			return ""
		}
		return string(bytes.TrimSpace(value))
	}
}

// explainDemand answers for explanations as a connection would be answered.
func (p *Proxy) explainDemand(ctx context.Context, dst netip.AddrPort, host string) (explain.Demanded, error) {
	found, err := p.demand.Lookup(ctx, dst)
	if err == nil && !found.Known && host != "" {
		if byName, err := p.demand.LookupHost(ctx, host, dst.Port()); err == nil && byName.Known {
			found.Done()
			found = byName
		} else if err == nil {
			byName.Done()
		}
	}
	if err != nil {
		return explain.Demanded{}, err
	}
	defer found.Done()
	out := explain.Demanded{Found: found.Known, Listener: found.Listener()}
	if !found.Known {
		return out, nil
	}
	out.Name = found.Name()
	out.Service.Host, out.Service.Namespace, out.Service.Name = string(found.Host), string(found.Namespace), found.Service.Name
	if found.HTTP != nil {
		out.Routes = found.HTTP.HTTP.Routes
	}
	if found.Protocol != demand.HTTP {
		out.Cluster = found.TCP.TCP.Pick(0)
	}
	return out, nil
}

// countDemand emits what the directory counts.
func (p *Proxy) countDemand(e *telemetry.Emitter) {
	s := p.demand.Stats()
	e.Gauge("meltemi_demand_destinations", float64(s.Destinations))
	e.Gauge("meltemi_demand_unknown", float64(s.Unknown))
	e.Gauge("meltemi_demand_pending", float64(s.Busy))
	e.Counter("meltemi_demand_questions_total", float64(s.Questions))
	e.Counter("meltemi_demand_held_total", float64(s.Held))
	e.Counter("meltemi_demand_held_seconds_total", s.HeldFor.Seconds())
	e.Counter("meltemi_demand_failed_total", float64(s.Failed))
	e.Counter("meltemi_demand_dropped_total", float64(s.Dropped+s.Evicted))
}
