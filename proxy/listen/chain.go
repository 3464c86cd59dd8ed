// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

// Why a connection is closed before any chain conducts it.
var (
	ErrNoChain  = errors.New("no filter chain matches the connection")
	ErrSilent   = errors.New("the client sent nothing that tells its protocol in time")
	errNotReady = errors.New("the filter chain's certificate has not arrived")
)

// dispatch inspects the first bytes, chooses the chain, terminates TLS and hands
// the connection, whose socket is raw, over.
func (m *Manager) dispatch(conn *netio.Peeked, raw net.Conn, l *config.Listener, facts *filter.Conn) {
	cf := connFacts(facts)
	if !l.OnDemand() { // there the destination says whether to look at the bytes
		if err := inspect(conn, l, &cf, l.InspectTimeout); err != nil {
			m.cfg.Unmatched(l, facts, err)
			return
		}
	}
	facts.SNI = cf.SNI
	chain := l.Choose(&cf)
	if chain == nil {
		m.cfg.Unmatched(l, facts, ErrNoChain)
		return
	}
	facts.Chain = chain.Name
	tie := &Tie{conn: conn, listener: l.Name, facts: cf, drain: make(chan struct{})}
	m.join(chain, tie, raw)
	defer m.leave(tie)
	if chain.TLS == nil {
		m.cfg.Serve(conn, facts, tie)
		return
	}
	secure, err := handshake(conn, chain, facts)
	if err != nil {
		m.cfg.Unmatched(l, facts, fmt.Errorf("TLS with the client failed: %w", err))
		return
	}
	m.cfg.Serve(secure, facts, tie)
}

func connFacts(facts *filter.Conn) config.ConnFacts {
	return config.ConnFacts{Local: facts.Local, Remote: facts.Remote, DirectRemote: facts.DirectRemote, Transport: "raw_buffer"}
}

// Inspect looks at the first bytes of a connection, as l would have it: for who
// learns only after Handler was called what the connection is for. An error is why it is to be closed.
func Inspect(conn *netio.Peeked, l *config.Listener, facts *filter.Conn) (config.ConnFacts, error) {
	cf := connFacts(facts)
	err := inspect(conn, l, &cf, l.InspectTimeout)
	facts.SNI = cf.SNI
	return cf, err
}

// Await is Inspect where the client must speak first: its first byte is waited for
// without limit, until drain is closed, since clients open connections in advance.
func Await(conn *netio.Peeked, l *config.Listener, facts *filter.Conn, drain <-chan struct{}) (config.ConnFacts, error) {
	spoke, quiet := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(quiet)
		select {
		case <-spoke:
		case <-drain:
			_ = conn.SetReadDeadline(time.Unix(1, 0)) // wakes who waits
		}
	}()
	cf := connFacts(facts)
	b, err := conn.Sniff(0, func([]byte) bool { return true })
	switch {
	case len(b) > 0:
		err = inspect(conn, l, &cf, helloTime(l))
	case err == nil:
		err = ErrSilent
	default:
		err = fmt.Errorf("reading the first bytes: %w", err)
	}
	close(spoke)
	<-quiet
	_ = conn.SetReadDeadline(time.Time{})
	facts.SNI = cf.SNI
	return cf, err
}

// Inspects says whether l looks for TLS, and for HTTP, in connections to local.
func Inspects(l *config.Listener, local netip.AddrPort) (tls, http bool) {
	on := func(i *config.Inspector) bool { return i != nil && (i.Disabled == nil || !i.Disabled.Match(local)) }
	return on(l.TLSInspector), on(l.HTTPInspector)
}

// inspect looks at the first bytes as far as the listener's chains need it. A
// client that waits for the server to speak is not waited for longer than wait
// (0: no limit); with ContinueOnTimeout the choice is then made without. One that
// has begun to speak has only lost a segment on the way, and is waited for longer.
func inspect(conn *netio.Peeked, l *config.Listener, cf *config.ConnFacts, wait time.Duration) error {
	forTLS, forHTTP := Inspects(l, cf.Local)
	if !forTLS && !forHTTP {
		return nil
	}
	decided := false
	enough := func(b []byte) bool {
		decided = look(b, forTLS, forHTTP, cf)
		return decided
	}
	b, err := conn.Sniff(wait, enough)
	if err == nil && wait > 0 && !decided {
		patient := begins(b, forTLS, forHTTP)
		if len(b) == 0 {
			patient = l.ContinueOnTimeout && clientFirst(l.Choose(cf))
		}
		if more := helloTime(l) - wait; patient && more > 0 {
			_, err = conn.Sniff(more, enough)
		}
	}
	if err != nil {
		return fmt.Errorf("reading the first bytes: %w", err)
	}
	if decided || len(conn.Buffered()) > 0 {
		return nil
	}
	if _, open := conn.Raw(); !open {
		return fmt.Errorf("%w: it hung up", ErrSilent)
	}
	if !l.ContinueOnTimeout {
		return ErrSilent
	}
	return nil
}

// clientFirst reports whether the server waits for the client where silence is brought to c, so that nobody is stalled
// by waiting for the client: c is HTTP's, or there is none for who speaks no TLS.
func clientFirst(c *config.FilterChain) bool { return c == nil || c.TLS != nil || c.HTTP != nil }

// defaultHelloTime is Envoy's listener_filters_timeout, and the time that Istio gives a TLS handshake.
const defaultHelloTime = 15 * time.Second

// helloTime is how long a client may take to say what it speaks once it has begun: as long as for a TLS handshake.
func helloTime(l *config.Listener) time.Duration {
	var longest time.Duration
	for _, c := range append(slices.Clip(l.Chains), l.Default) {
		if c != nil && c.TLS != nil {
			longest = max(longest, c.HandshakeTimeout)
		}
	}
	return cmp.Or(longest, defaultHelloTime)
}

// begins reports whether b, of which look cannot tell yet what it is, is likely to become it.
func begins(b []byte, forTLS, forHTTP bool) bool {
	if len(b) == 0 {
		return false
	}
	if forTLS {
		if _, err := parseHello(b); errors.Is(err, errMore) {
			return true
		}
	}
	return forHTTP && beginsHTTP(b)
}

// look tells what b is, if it can be told yet.
func look(b []byte, forTLS, forHTTP bool, cf *config.ConnFacts) (decided bool) {
	if forTLS {
		h, err := parseHello(b)
		switch {
		case errors.Is(err, errMore):
			return false
		case err == nil:
			cf.Transport, cf.SNI, cf.Protocols = "tls", h.sni, h.alpn
			return true
		}
	}
	if !forHTTP {
		return true
	}
	proto, done := sniffHTTP(b)
	if done && proto != "" {
		cf.Protocols = protocolLists[proto]
	}
	return done
}

// protocolLists spares an allocation per connection.
var protocolLists = map[string][]string{
	protoHTTP10: {protoHTTP10}, protoHTTP11: {protoHTTP11}, protoH2C: {protoH2C},
}

// handshake terminates TLS and draws out what policies and logs want to know.
func handshake(conn *netio.Peeked, chain *config.FilterChain, facts *filter.Conn) (net.Conn, error) {
	if chain.TLS.Ready != nil {
		if err := chain.TLS.Ready(); err != nil {
			return nil, fmt.Errorf("%w: %w", errNotReady, err)
		}
	}
	ctx := context.Background()
	if chain.HandshakeTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, chain.HandshakeTimeout)
		defer cancel()
	}
	begin := time.Now()
	secure := tls.Server(conn, chain.TLS.Config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	facts.Handshake = time.Since(begin)
	state := secure.ConnectionState()
	facts.TLS = &state
	if chain.TLS.Own != nil {
		if own := chain.TLS.Own(); own != nil {
			facts.Own = certificate(own)
		}
	}
	if len(state.PeerCertificates) > 0 {
		facts.Peer = certificate(state.PeerCertificates[0])
		facts.Mutual = !chain.TLS.AcceptUntrusted
	}
	return secure, nil
}

func certificate(c *x509.Certificate) filter.Certificate {
	sum := sha256.Sum256(c.Raw)
	out := filter.Certificate{
		DNSSANs: c.DNSNames, Subject: c.Subject.String(), Issuer: c.Issuer.String(),
		Serial: strings.ToLower(c.SerialNumber.Text(16)), SHA256: hex.EncodeToString(sum[:]),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
	for _, u := range c.URIs {
		out.URISANs = append(out.URISANs, u.String())
	}
	return out
}
