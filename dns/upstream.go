// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// host returns the asked name as tables have it: lower case, no trailing dot.
func (q *question) host() string { return strings.TrimSuffix(strings.ToLower(q.name), ".") }

func rcode(msg []byte) int { return int(msg[3] & 0x0f) }

func truncated(msg []byte) bool { return msg[2]&0x02 != 0 }

// forward asks the resolvers in order until one answers usefully. The question goes out and the answer comes back
// as they are, but for the ID, which is ours towards the resolver. SERVFAIL and REFUSED count as no
// answer while there is another resolver to try.
func (s *Server) forward(ctx context.Context, q *question, network string) ([]byte, error) {
	var errs []error
	var last []byte
	for _, addr := range s.cfg.Upstream {
		reply, err := s.exchange(ctx, q.raw, network, addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if truncated(reply) && network == "udp" {
			// Perhaps it fits what our client takes, though not what this resolver sends over UDP.
			if full, err := s.exchange(ctx, q.raw, "tcp", addr); err == nil && len(full) <= q.limit {
				reply = full
			}
		}
		last = reply
		if c := rcode(reply); c != dns.RcodeServerFailure && c != dns.RcodeRefused {
			return reply, nil
		}
	}
	if last != nil {
		return last, nil
	}
	return nil, errors.Join(errs...)
}

// exchange sends raw to one resolver and returns its answer with raw's ID.
func (s *Server) exchange(ctx context.Context, raw []byte, network string, addr netip.AddrPort) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.UpstreamTimeout)
	defer cancel()
	c, err := s.cfg.Dial(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("resolver %s: %w", addr, err)
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	out := slices.Clone(raw)
	if _, err := rand.Read(out[:2]); err != nil {
		return nil, err
	}
	var reply []byte
	if network == "tcp" {
		reply, err = exchangeTCP(c, out)
	} else {
		reply, err = exchangeUDP(c, out)
	}
	if err != nil {
		return nil, fmt.Errorf("resolver %s over %s: %w", addr, network, err)
	}
	copy(reply[:2], raw[:2])
	return reply, nil
}

func exchangeTCP(c net.Conn, out []byte) ([]byte, error) {
	if err := writeFrame(c, out); err != nil {
		return nil, err
	}
	reply, err := readFrame(c)
	if err != nil {
		return nil, err
	}
	if !answers(reply, out) {
		return nil, errors.New("the answer is to another question")
	}
	return reply, nil
}

var datagrams = sync.Pool{New: func() any { return new([maxTCP]byte) }}

func exchangeUDP(c net.Conn, out []byte) ([]byte, error) {
	if _, err := c.Write(out); err != nil {
		return nil, err
	}
	buf := datagrams.Get().(*[maxTCP]byte)
	defer datagrams.Put(buf)
	for {
		n, err := c.Read(buf[:])
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], out) { // what does not is late, or forged
			return slices.Clone(buf[:n]), nil
		}
	}
}

// answers reports whether reply is an answer to question: same ID, and same question if it repeats one.
func answers(reply, question []byte) bool {
	if len(reply) < 12 || reply[2]&0x80 == 0 || !bytes.Equal(reply[:2], question[:2]) {
		return false
	}
	if binary.BigEndian.Uint16(reply[4:6]) == 0 {
		return rcode(reply) != dns.RcodeSuccess // errors may leave the question out
	}
	asked, n1, err1 := dns.UnpackDomainName(question, 12)
	told, n2, err2 := dns.UnpackDomainName(reply, 12)
	if err1 != nil || err2 != nil || !strings.EqualFold(asked, told) {
		return false
	}
	return n1+4 <= len(question) && n2+4 <= len(reply) && bytes.Equal(question[n1:n1+4], reply[n2:n2+4])
}
