// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/l7/sanitize"
)

// A seat is what exchanges take from their connection's settings. The settings may
// change while the connection is open; an exchange keeps the seat it began with.
type seat struct {
	site    *site
	routes  *config.RouteRef
	element string // for x-forwarded-client-cert
}

func (c *connection) newSeat(st *site) *seat {
	out := &seat{site: st, routes: c.fixed, element: sanitize.CertElement(c.facts, st.http)}
	if out.routes == nil {
		out.routes = st.http.Routes
	}
	return out
}

// http is the settings of the latest exchange.
func (c *connection) http() *config.HTTP { return c.seat.Load().site.http }

// sit returns the seat of an exchange that begins now. It reports false if the
// settings of now cannot be served: those before them may not be, as a policy may have changed.
func (c *connection) sit() (*seat, bool) {
	now := c.seat.Load()
	h := c.now()
	if h == now.site.http {
		return now, true
	}
	next, err := c.change(h)
	if err != nil {
		c.server.cfg.Log.Error("connection closed: its filter chain cannot be served any more", "listener", c.facts.Listener, "error", err)
		_ = c.net.Close() // without the lock, for which the sweeper would wait
		return nil, false
	}
	return next, true
}

// change makes the seat one of h.
func (c *connection) change(h *config.HTTP) (*seat, error) {
	c.mu.Lock() // streams may begin at once
	defer c.mu.Unlock()
	now := c.seat.Load()
	if h == now.site.http {
		return now, nil
	}
	st, err := c.server.enter(h)
	if err != nil {
		return nil, err
	}
	c.server.leave(now.site)
	next := c.newSeat(st)
	c.seat.Store(next)
	return next, nil
}
