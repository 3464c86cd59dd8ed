// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net"
	"testing"
	"time"

	"github.com/meltemi/meltemi/http1"
)

// reluctant is a connection whose peer has to do something before it is closed.
type reluctant struct {
	net.Conn
	closing chan<- struct{}
	may     <-chan struct{}
}

func (c reluctant) Close() error {
	<-c.may
	err := c.Conn.Close()
	c.closing <- struct{}{}
	return err
}

// Who looks after the connections of all hosts does not wait until the peer of one
// has read that it is closed.
func TestSweepDoesNotWaitForAPeer(t *testing.T) {
	c, h, _, open := gate(t, func(s *Spec) { s.IdleTimeout = time.Hour })
	open()
	l := mustOpen(t, c, h, &Request{})
	if _, err := exchange(l, "/x"); err != nil {
		t.Fatal(err)
	}
	one := l.single
	l.Done(Outcome{Status: 200, Reusable: true})
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	closing, may := make(chan struct{}, 1), make(chan struct{})
	_ = one.conn.Close()
	one.conn.Release()
	one.conn = http1.NewClientConn(reluctant{ours, closing, may}, http1.ClientConfig{})
	swept := make(chan struct{})
	go func() { h.pool.sweep(time.Now().Add(2 * time.Hour)); close(swept) }()
	select {
	case <-swept:
	case <-time.After(soonest):
		t.Error("all hosts wait for the peer of one")
	}
	close(may)
	<-closing
	<-swept
	if n := c.stats.ConnActive.Load(); n != 0 || h.pool.active() != 0 {
		t.Errorf("%d connections are counted, %d are open", n, h.pool.active())
	}
}
