// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/filter"
)

// on has r serve a connection whose other end it returns; wrap makes of our end what r gets.
func (r *rig) on(t *testing.T, wrap func(net.Conn) net.Conn) (theirs net.Conn) {
	ours, theirs := net.Pipe()
	_ = theirs.SetDeadline(time.Now().Add(patience))
	var served sync.WaitGroup
	served.Go(func() {
		r.server.ServeConn(wrap(ours), &filter.Conn{ID: r.conns.Add(1), Start: time.Now()}, func() *config.HTTP { return r.http }, nil, r.drain)
	})
	t.Cleanup(func() { _ = theirs.Close(); served.Wait() })
	return theirs
}

// reluctant is a connection whose client has to do something before it is closed.
type reluctant struct {
	net.Conn
	closing chan<- struct{}
	may     <-chan struct{}
}

func (c reluctant) Close() error {
	c.closing <- struct{}{}
	<-c.may
	return c.Conn.Close()
}

// Who looks at all connections closes none, so that nobody waits until the client of another has read its goodbye.
func TestSweeperDoesNotWaitForAClient(t *testing.T) {
	r := newRig(t, func(s *setup) { s.http.MaxDuration = 50 * time.Millisecond })
	closing, may := make(chan struct{}, 8), make(chan struct{})
	defer close(may)
	for range 2 {
		r.on(t, func(c net.Conn) net.Conn { return reluctant{c, closing, may} })
	}
	<-closing
	if _, err := r.dial().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("another connection, whose time is over, too: %v, want its end", err)
	}
}

// A client whose connection has idled, or lasted, long enough is told by TLS.
func TestHangingUpSaysGoodbye(t *testing.T) {
	r := newRig(t, func(s *setup) { s.http.MaxDuration = 50 * time.Millisecond })
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	c := tls.Client(r.on(t, func(c net.Conn) net.Conn {
		return tls.Server(c, &tls.Config{Certificates: s.TLS.Certificates, SessionTicketsDisabled: true})
	}), &tls.Config{InsecureSkipVerify: true})
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, want %v", err, io.EOF)
	}
}
