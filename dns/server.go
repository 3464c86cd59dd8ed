// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/meltemi/meltemi/netio"
)

// A Server answers DNS questions.
type Server struct {
	cfg     Config
	table   atomic.Pointer[Table] // nil until the first Swap
	turn    atomic.Uint32
	pending chan struct{} // one token per question under way elsewhere

	questions, answered, forwarded, failed, refused atomic.Uint64
}

// New checks cfg; it opens nothing.
func New(cfg Config) (*Server, error) {
	if len(cfg.Listen) == 0 {
		return nil, errors.New("dns: no address to listen on")
	}
	for _, a := range cfg.Listen {
		if !a.IsValid() || a.Addr().IsUnspecified() {
			return nil, fmt.Errorf("dns: listen address %s: must be a particular address, so that answers come from where the question went", a)
		}
	}
	if cfg.MaxPending <= 0 || cfg.MaxConns <= 0 || cfg.UpstreamTimeout <= 0 || cfg.Idle <= 0 {
		return nil, errors.New("dns: limits must be positive; start from Defaults")
	}
	if cfg.Dial == nil {
		return nil, errors.New("dns: no Dial; start from Defaults")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, pending: make(chan struct{}, cfg.MaxPending)}, nil
}

// Swap makes t the names of the mesh. Questions under way keep the table they began with.
func (s *Server) Swap(t *Table) { s.table.Store(t) }

// Lookup returns the addresses of a mesh name as the workload would get them.
func (s *Server) Lookup(name string) (addrs []netip.Addr, known bool) {
	t := s.table.Load()
	if t == nil {
		return nil, false
	}
	addrs, _, known = t.Lookup(s.cfg.Scope, name)
	return addrs, known
}

// Ready reports whether there is a table yet.
func (s *Server) Ready() bool { return s.table.Load() != nil }

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	return Stats{s.questions.Load(), s.answered.Load(), s.forwarded.Load(), s.failed.Load(), s.refused.Load()}
}

// Sockets is one address being served.
type Sockets struct {
	UDP net.PacketConn
	TCP net.Listener
}

// Open opens the sockets of all addresses, in the network namespace of the calling thread. With port 0
// TCP and UDP of one address share the port that UDP was given.
func (s *Server) Open(ctx context.Context) ([]Sockets, error) {
	var all []Sockets
	for _, addr := range s.cfg.Listen {
		udp, err := netio.ListenUDP(ctx, addr, s.cfg.Socket)
		if err != nil {
			closeAll(all)
			return nil, fmt.Errorf("dns: %w", err)
		}
		addr = netip.AddrPortFrom(addr.Addr(), netio.AddrPortOf(udp.LocalAddr()).Port())
		tcp, err := netio.Listen(ctx, addr, s.cfg.Socket)
		if err != nil {
			_ = udp.Close()
			closeAll(all)
			return nil, fmt.Errorf("dns: %w", err)
		}
		all = append(all, Sockets{udp, tcp})
	}
	return all, nil
}

func closeAll(all []Sockets) {
	for _, k := range all {
		_ = k.UDP.Close()
		_ = k.TCP.Close()
	}
}

// Run opens the configured addresses and serves them until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	all, err := s.Open(ctx)
	if err != nil {
		return err
	}
	return s.Serve(ctx, all...)
}

// Serve answers on sockets until ctx ends or one of them fails, and closes them.
func (s *Server) Serve(ctx context.Context, sockets ...Sockets) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failures := make(chan error, 2*len(sockets))
	var wg sync.WaitGroup
	for _, k := range sockets {
		wg.Go(func() { failures <- s.serveUDP(ctx, k.UDP, &wg) })
		wg.Go(func() { failures <- s.serveTCP(ctx, k.TCP, &wg) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failures:
	}
	cancel()
	closeAll(sockets)
	wg.Wait()
	return err
}

func (s *Server) serveUDP(ctx context.Context, c net.PacketConn, wg *sync.WaitGroup) error {
	buf := make([]byte, maxUDP)
	for {
		n, from, err := c.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("dns: UDP socket %s: %w", c.LocalAddr(), err)
		}
		if err != nil {
			continue // what a datagram of ours met on its way, reported on the socket
		}
		reply, q := s.here(buf[:n], false)
		if q == nil {
			if reply != nil {
				_, _ = c.WriteTo(reply, from)
			}
			continue
		}
		if !s.admit() {
			_, _ = c.WriteTo(q.fail(dns.RcodeServerFailure), from)
			continue
		}
		q.raw = slices.Clone(q.raw)
		wg.Go(func() {
			defer s.leave()
			_, _ = c.WriteTo(s.elsewhere(ctx, q, "udp"), from)
		})
	}
}

func (s *Server) serveTCP(ctx context.Context, l net.Listener, wg *sync.WaitGroup) error {
	slots := make(chan struct{}, s.cfg.MaxConns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("dns: TCP listener %s: %w", l.Addr(), err)
		}
		if err != nil {
			<-slots
			s.pause(ctx, err)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			s.serveConn(ctx, c)
		})
	}
}

// pause waits a little after a failed accept: out of files, usually.
func (s *Server) pause(ctx context.Context, err error) {
	s.cfg.Log.WarnContext(ctx, "dns: accept failed, trying again", "err", err)
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// serveConn answers the questions of one TCP client, one after the other (RFC 7766 allows it to wait).
func (s *Server) serveConn(ctx context.Context, c net.Conn) {
	for {
		_ = c.SetDeadline(time.Now().Add(s.cfg.Idle))
		raw, err := readFrame(c)
		if err != nil {
			return
		}
		reply, q := s.here(raw, true)
		if q != nil {
			reply = q.fail(dns.RcodeServerFailure)
			if s.admit() {
				reply = s.elsewhere(ctx, q, "tcp")
				s.leave()
			}
		}
		if reply == nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(s.cfg.Idle))
		if err := writeFrame(c, reply); err != nil {
			return
		}
	}
}

// readFrame reads a message with its two-byte length (RFC 1035 section 4.2.2).
func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFrame(w io.Writer, b []byte) error {
	if len(b) > maxTCP {
		return fmt.Errorf("dns: message of %d bytes is too long for TCP", len(b))
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...))
	return err
}

func (s *Server) admit() bool {
	select {
	case s.pending <- struct{}{}:
		return true
	default:
		s.refused.Add(1)
		return false
	}
}

func (s *Server) leave() { <-s.pending }

// here answers what can be answered without waiting. Otherwise it returns the question; its raw bytes are
// still those of packet.
func (s *Server) here(packet []byte, tcp bool) ([]byte, *question) {
	q, reply := parse(packet, tcp)
	if q == nil {
		s.refused.Add(1)
		return reply, nil
	}
	s.questions.Add(1)
	t := s.table.Load()
	if t == nil {
		return q.fail(dns.RcodeServerFailure), nil
	}
	if q.ours() {
		if r, alias := t.find(s.cfg.Scope, q.host()); r != nil {
			s.answered.Add(1)
			return q.answer(r, alias, s.turn.Add(1)), nil
		}
	}
	return nil, q
}

// elsewhere asks the control plane, then the resolvers of the machine.
func (s *Server) elsewhere(ctx context.Context, q *question, network string) []byte {
	if q.ours() && s.cfg.Ask != nil {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.UpstreamTimeout)
		addrs, found, err := s.cfg.Ask(ctx, s.cfg.Scope.Candidates(q.host()))
		cancel()
		if found {
			s.answered.Add(1)
			return q.answer(newRecord(addrs, false), "", s.turn.Add(1))
		}
		if err != nil {
			s.cfg.Log.WarnContext(ctx, "dns: the control plane could not say whether the mesh knows a name", "name", q.name, "err", err)
			s.failed.Add(1)
			return q.fail(dns.RcodeServerFailure)
		}
	}
	if len(s.cfg.Upstream) == 0 {
		return q.fail(s.absent(q))
	}
	s.forwarded.Add(1)
	reply, err := s.forward(ctx, q, network)
	if err != nil {
		s.failed.Add(1)
		s.cfg.Log.DebugContext(ctx, "dns: no resolver answered", "name", q.name, "err", err)
		return q.fail(dns.RcodeServerFailure)
	}
	if rcode(reply) == dns.RcodeNameError && s.absent(q) == dns.RcodeSuccess {
		return q.fail(dns.RcodeSuccess)
	}
	return reply
}

// absent is the verdict on a record that nobody has: no error if the mesh knows the name, asked for another type.
func (s *Server) absent(q *question) int {
	if t := s.table.Load(); t != nil {
		if r, _ := t.find(s.cfg.Scope, q.host()); r != nil {
			return dns.RcodeSuccess
		}
	}
	return dns.RcodeNameError
}
