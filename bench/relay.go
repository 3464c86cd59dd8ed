// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"runtime"
)

// relayArg makes this program the relay: what a proxy in Go costs that does nothing at all.
const relayArg = "relay"

// startRelay runs a relay of bytes on one core. It reads a message in one piece, which
// holds for the rows it is in, and knows neither requests nor responses.
func startRelay(ctx context.Context, b *bench, r row, addr string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if r.mtls {
		return launch(ctx, addr, self, relayArg, addr, b.secure, b.path("client.pem"), b.path("client.key"))
	}
	return launch(ctx, addr, self, relayArg, addr, b.plain)
}

// relay serves ADDR for UPSTREAM, which it calls with TLS if a certificate and its key are given, until it
// fails.
func relay(argv []string) error {
	runtime.GOMAXPROCS(1)
	if len(argv) != 2 && len(argv) != 4 {
		return fmt.Errorf("usage: %s ADDR UPSTREAM [CERTIFICATE KEY]", relayArg)
	}
	dial := func() (net.Conn, error) { return net.Dial("tcp", argv[1]) }
	if len(argv) == 4 {
		pair, err := tls.LoadX509KeyPair(argv[2], argv[3])
		if err != nil {
			return err
		}
		// Both ends are ours: who the origin is makes no difference to what a request costs.
		cfg := &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}
		dial = func() (net.Conn, error) { return tls.Dial("tcp", argv[1], cfg) }
	}
	ln, err := net.Listen("tcp", argv[0])
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() { _ = relayConn(c, dial) }()
	}
}

func relayConn(client net.Conn, dial func() (net.Conn, error)) error {
	defer func() { _ = client.Close() }()
	origin, err := dial()
	if err != nil {
		return err
	}
	defer func() { _ = origin.Close() }()
	buf := make([]byte, 16<<10)
	for from, to := client, origin; ; from, to = to, from {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}
