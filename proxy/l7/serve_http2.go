// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"github.com/meltemi/meltemi/http2"
	"github.com/meltemi/meltemi/proxy/fault"
)

// serveHTTP2 serves many requests at once, each in a goroutine of its own that
// the codec lends.
func (c *connection) serveHTTP2(held []byte) {
	h := c.http()
	cfg := http2.ServerDefaults()
	if h.HTTP2.MaxStreams > 0 {
		cfg.MaxStreams = int(min(h.HTTP2.MaxStreams, 1<<20))
	}
	if w := int(h.HTTP2.StreamWindow); w > 0 {
		cfg.MaxStreamWindow = min(cfg.MaxStreamWindow, w) // a bound to what we grant
		cfg.StreamWindow = min(cfg.StreamWindow, cfg.MaxStreamWindow)
	}
	if w := int(h.HTTP2.ConnWindow); w > 0 {
		cfg.ConnWindow = min(cfg.ConnWindow, w)
	}
	if h.MaxHeaderBytes > 0 {
		cfg.Limits.HeaderBytes = int(h.MaxHeaderBytes)
	}
	if h.MaxHeaders > 0 {
		cfg.Limits.HeaderFields = int(h.MaxHeaders)
	}
	cfg.KeepAlive = h.HTTP2.KeepaliveInterval
	if h.HTTP2.KeepaliveTimeout > 0 {
		cfg.KeepAliveTimeout = h.HTTP2.KeepaliveTimeout
	}
	srv := http2.NewServer(c.net, cfg, c.serveStream)
	c.mu.Lock()
	c.h2 = srv
	c.mu.Unlock()
	if err := srv.Serve(held); err != nil {
		c.server.cfg.Log.Debug("HTTP/2 connection ended", "connection", c.facts.ID, "error", err)
	}
}

// serveStream conducts the exchange of one stream.
func (c *connection) serveStream(st *http2.ServerStream) {
	x := take()
	x.down = st
	if !x.start(c, st.Request()) {
		st.Abort(uint32(http2.CodeRefusedStream))
		x.release()
		return
	}
	whole := false
	defer func() {
		if !whole { // a defect: somebody may hold the request still
			st.Keep()
		}
	}()
	defer c.recoverPanic(x)
	gen := x.generation
	st.OnReset(func() { x.cancelIf(gen, streamReset) })
	if c.usedUp() {
		c.mu.Lock()
		c.turns++ // the sweeper sends GOAWAY
		c.mu.Unlock()
	}
	x.conduct()
	x.end()
	x.release()
	whole = true
}

// streamReset is why an exchange ends whose stream the client has reset.
var streamReset = &fault.Fault{Side: fault.Client, Kind: fault.ClientGone, Details: "http2.remote_reset", Hint: "the client reset its stream"}
