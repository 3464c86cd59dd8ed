// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package netio is what the mesh needs of sockets beyond the standard library.
//
//	origdst.go   where a captured connection wanted to go
//	listen.go    listening sockets: transparent, shared ports; a taken port names its owner
//	dial.go      outgoing sockets: mark, source address
//	owner.go     which process holds a port
//	peeked.go    reading first bytes without consuming them
//	relay.go     bytes both ways between two connections, spliced in the kernel where possible
//
// What only Linux can do lives in *_linux.go; elsewhere the same functions say so in an error
// that wraps ErrUnsupported. Network namespaces are in the netns folder, so that a program which
// only relays does not link netlink; memnet is the in-memory twin for tests.
package netio
