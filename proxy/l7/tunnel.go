// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// A Tunnel is an exchange that has become raw bytes both ways.
type Tunnel = interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// tunnel passes the upstream's agreement on, and then bytes both ways until both
// directions have ended.
func (x *exchange) tunnel() *fault.Fault {
	x.tunnelled = true
	x.isTunnel.Store(true)
	x.Mark(filter.ResponseBegin)
	if x.Response.Protocol == "" {
		x.Response.Protocol = x.Request.Protocol
	}
	if err := x.down.WriteHead(&x.Response, false); err != nil {
		return x.clientFault(err)
	}
	x.headSent = true
	if err := x.down.Flush(); err != nil {
		return x.clientFault(err)
	}
	down, up := x.down.Tunnel(), x.lease.Tunnel()
	if down == nil || up == nil {
		return &fault.Fault{Side: fault.Upstream, Kind: fault.UpstreamProtocol, Details: "upgrade_failed", Object: "cluster " + x.Target.Cluster,
			Hint: "the endpoint agreed to an upgrade that nobody asked for"}
	}
	x.splice(down, up)
	x.Mark(filter.ResponseEnd)
	return nil
}

// connectRaw terminates CONNECT: what follows it is bytes of a TCP connection.
func (x *exchange) connectRaw() *fault.Fault {
	x.prepareAttempts(true)
	x.Attempts++
	host, f := x.cluster.Pick(&x.pick)
	if f != nil {
		return f
	}
	x.tell(host)
	defer x.endAttempt(nil)
	conn, f := x.cluster.Dial(host, &x.pick)
	if f != nil {
		x.cluster.ReportTCP(host, f)
		x.Upstream.Failure = failureText(f)
		return f
	}
	defer x.cluster.Hangup(host, nil)
	defer func() { _ = conn.Close() }()
	x.tunnelled = true
	x.isTunnel.Store(true)
	x.Details = viaUpstream
	x.Response.Status = 200
	x.site.http.Chain.Respond(&x.Exchange)
	x.finishHead()
	x.Mark(filter.ResponseBegin)
	if err := x.down.WriteHead(&x.Response, false); err != nil {
		return x.clientFault(err)
	}
	x.headSent = true
	if err := x.down.Flush(); err != nil {
		return x.clientFault(err)
	}
	if f := x.setStream(rawStream{conn: conn}); f != nil {
		return f
	}
	x.splice(x.down.Tunnel(), rawTunnel{conn})
	_ = x.setStream(nil)
	x.Mark(filter.ResponseEnd)
	return nil
}

// splice moves bytes both ways. Between plain sockets they stay in the kernel.
func (x *exchange) splice(down, up Tunnel) {
	d, u := socket(down), socket(up)
	if d != nil && u != nil && x.idleLimit.Load() == 0 {
		var moved netio.Counts
		_ = netio.Relay(d, u, 0, &moved)
		x.countTunnel(moved.AToB.Load(), moved.BToA.Load())
		return
	}
	var to, from atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() { x.copy(up, down, &to) })
	x.copy(down, up, &from)
	wg.Wait()
	_ = up.Close()
	_ = down.Close()
	if _, dialled := up.(rawTunnel); dialled {
		x.countTunnel(int64(to.Load()), int64(from.Load()))
		return
	}
	x.Received += to.Load() // the upstream's codec has counted its own
	x.Sent += from.Load()
}

// countTunnel counts bytes that no codec saw.
func (x *exchange) countTunnel(to, from int64) {
	x.Received += uint64(to)
	x.Sent += uint64(from)
	s := x.cluster.Stats()
	s.BytesOut.Add(to)
	s.BytesIn.Add(from)
}

// copy moves one direction until it ends; a failure ends both.
func (x *exchange) copy(to, from Tunnel, count *atomic.Uint64) {
	scratch := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(scratch)
	for {
		n, err := from.Read(scratch[:])
		if n > 0 {
			x.moved()
			count.Add(uint64(n))
			if _, err := to.Write(scratch[:n]); err != nil {
				_ = from.Close()
				_ = to.Close()
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			_ = to.Close()
			_ = from.Close()
			return
		}
	}
}

// socket returns the connection under a tunnel if all its bytes are still in it.
func socket(t Tunnel) net.Conn {
	c, ok := t.(interface {
		NetConn() net.Conn
		Buffered() int
	})
	if !ok || c.Buffered() > 0 {
		return nil
	}
	if _, ok := c.NetConn().(*net.TCPConn); !ok {
		return nil
	}
	return c.NetConn()
}

// rawTunnel is a dialled connection as a Tunnel.
type rawTunnel struct{ net.Conn }

func (t rawTunnel) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return t.Conn.Close()
}

func (t rawTunnel) NetConn() net.Conn { return t.Conn }

func (t rawTunnel) Buffered() int { return 0 }

// rawStream lets cancel end a dialled connection.
type rawStream struct {
	upstream.Stream
	conn net.Conn
}

// Abort may be called by who looks after all connections: TLS takes its leave meanwhile.
func (s rawStream) Abort(uint32) { go func() { _ = s.conn.Close() }() }
