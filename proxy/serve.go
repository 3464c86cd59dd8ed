// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/listen"
	"github.com/meltemi/meltemi/proxy/upstream"
)

var _ listen.Handler = (*Proxy)(nil).serve

// serve conducts a connection whose chain has been chosen.
func (p *Proxy) serve(conn net.Conn, facts *filter.Conn, tie *listen.Tie) {
	chain := tie.Chain()
	if chain.OnDemand != nil {
		p.serveOnDemand(conn, facts, chain, tie.Drain())
		return
	}
	p.conduct(conn, facts, chain, tie.Drain(), func() *config.HTTP { return tie.Chain().HTTP })
}

// conduct brings a connection to the room for its protocol. http gives the
// settings of the moment; nil: those of chain, to the end.
func (p *Proxy) conduct(conn net.Conn, facts *filter.Conn, chain *config.FilterChain, drain <-chan struct{}, http func() *config.HTTP) {
	switch {
	case chain.HTTP != nil:
		if f := p.l4.Authorize(facts, chain); f != nil {
			p.l4.Refuse(facts, chain, f)
			return
		}
		if http == nil {
			http = func() *config.HTTP { return chain.HTTP }
		}
		p.l7.ServeConn(conn, facts, http, nil, drain)
	case chain.TCP != nil:
		p.l4.Serve(conn, facts, chain, chain.TCP)
	}
}

// unmatched is told of connections that ended before any chain conducted them.
func (p *Proxy) unmatched(l *config.Listener, facts *filter.Conn, why error) {
	level := p.log.Debug
	if !errors.Is(why, listen.ErrSilent) {
		level = p.log.Info
	}
	level("a connection was closed before any filter chain took it", "listener", l.Name, "remote", facts.Remote, "local", facts.Local, "sni", facts.SNI, "why", why)
}

// dialCluster connects to an endpoint of a cluster for our own business.
func (p *Proxy) dialCluster(_ context.Context, name string) (net.Conn, error) {
	c := p.clusters.Ref(name).Load()
	if c == nil {
		return nil, fmt.Errorf("cluster %s is not known", name)
	}
	req := &upstream.Request{}
	host, f := c.Pick(req)
	if f != nil {
		return nil, f
	}
	conn, f := c.Dial(host, req)
	if f != nil {
		return nil, f
	}
	return conn, nil
}
