// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package hangup

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// pair is both ends of a connection.
func pair(t *testing.T, network, addr string) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if theirs, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	return ours, theirs
}

func TestSeen(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = filepath.Join(t.TempDir(), "s")
		}
		ours, _ := pair(t, network, addr)
		secure := tls.Server(ours, &tls.Config{})
		if Seen(ours) || Seen(secure) {
			t.Errorf("%s: an open connection has hung up", network)
		}
		_ = ours.Close()
		if !Seen(ours) || !Seen(secure) {
			t.Errorf("%s: a connection that we have closed ourselves is still there", network)
		}
	}
	ours, theirs := pair(t, "tcp", "127.0.0.1:0")
	_, _ = theirs.Write([]byte("unread"))
	_ = theirs.Close()
	for end := time.Now().Add(10 * time.Second); !Seen(ours) && runtime.GOOS == "linux"; {
		if time.Now().After(end) {
			t.Fatal("the peer has hung up, and nobody sees it")
		}
	}
}
