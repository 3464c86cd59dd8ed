// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/upstream/dial"
)

// defaultConnectTimeout is Envoy's.
const defaultConnectTimeout = 5 * time.Second

// connectDeadline is when a connection begun now must be ready, TLS included.
func connectDeadline(s *Spec, r *Request, now time.Time) time.Time {
	timeout := s.ConnectTimeout
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	at := now.Add(timeout)
	if !r.Deadline.IsZero() && r.Deadline.Before(at) {
		return r.Deadline
	}
	return at
}

// dial connects to h, and counts how it went. The caller has admitted the
// connection.
func (h *Host) dial(ctx context.Context, c *Cluster, r *Request, alpn []string) (net.Conn, *fault.Fault) {
	t := h.transport
	object := "cluster " + c.spec.Name + ", endpoint " + h.text
	if t.Broken != nil {
		if err := t.Broken(); err != nil {
			c.stats.ConnectFail.Add(1)
			h.stats.ConnectFail.Add(1)
			return nil, &fault.Fault{Side: fault.Mesh, Kind: fault.ConnectFailure, Object: object, Err: err,
				Hint: "the secret or certificate that this transport needs is not there"}
		}
	}
	target := dial.Target{
		Addr: h.addr, Pipe: h.pipe, Source: c.spec.BindSource, KeepAlive: c.spec.TCPKeepalive.config(), Mark: c.mark,
		TLS:           h.pool.tlsFor(alpn, r.SNI),
		Preamble:      c.spec.PeerExchange,
		ProxyProtocol: t.ProxyProtocol, Client: r.Client, Local: r.OriginalDst,
		Object: object,
	}
	// time.Now, not the cluster's clock: the kernel keeps this time.
	conn, f := dial.Open(ctx, connectDeadline(c.spec, r, time.Now()), &target)
	if f == nil || ctx.Err() == nil { // or else nobody wanted to know
		h.countDial(c, f)
	}
	return conn, f
}

func (h *Host) countDial(c *Cluster, f *fault.Fault) {
	secure := h.transport.TLS != nil
	if f == nil {
		c.stats.ConnTotal.Add(1)
		c.stats.ConnActive.Add(1)
		h.stats.ConnTotal.Add(1)
		h.stats.ConnActive.Add(1)
		if secure {
			c.stats.SSLHandshake.Add(1)
		}
		return
	}
	c.stats.ConnectFail.Add(1)
	h.stats.ConnectFail.Add(1)
	if f.Kind == fault.ConnectTimeout {
		c.stats.ConnectTimeout.Add(1)
	}
	if _, failed := f.Err.(*dial.HandshakeError); failed && secure {
		c.stats.SSLFail.Add(1)
	}
}

// countHangup ends what countDial began.
func (h *Host) countHangup(c *Stats) {
	c.ConnActive.Add(-1)
	h.stats.ConnActive.Add(-1)
}

func (k *Keepalive) config() net.KeepAliveConfig {
	if k == nil {
		return net.KeepAliveConfig{}
	}
	return net.KeepAliveConfig{Enable: true, Idle: k.Time, Interval: k.Interval, Count: int(k.Probes)}
}

// A clientTLS is a transport's TLS with what one kind of connection adds to it.
type clientTLS struct {
	alpn   []string
	sni    string
	config *tls.Config
}

// maxClientTLS bounds how many are kept per host: the SNI may be the client's.
const maxClientTLS = 64

// tlsFor returns the host's TLS configuration with alpn and sni, nil for
// plaintext. What differs from the transport's own is cloned once.
func (p *pool) tlsFor(alpn []string, sni string) *tls.Config {
	base := p.host.transport.TLS
	if base == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.secure {
		if s := &p.secure[i]; s.sni == sni && slices.Equal(s.alpn, alpn) {
			return s.config
		}
	}
	sni = strings.Clone(sni) // it may point into a head that was read
	config := base.Clone()
	config.NextProtos = alpn
	if sni != "" {
		config.ServerName = sni
	}
	if len(p.secure) < maxClientTLS {
		p.secure = append(p.secure, clientTLS{alpn, sni, config})
	}
	return config
}
