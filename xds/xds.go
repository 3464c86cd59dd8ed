// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// A Client is one stream, as the Hub sees it. It does not change while the stream lives.
type Client struct {
	Node        *corev3.Node // from the first request; never nil
	Identity    string       // verified SPIFFE ID; empty where nothing was verified
	Delta       bool         // the stream is incremental
	RemoteAddr  string
	ConnectedAt time.Time
	ID          string // unique per stream within this process
}

// A Hub opens a Feed for each client that was admitted.
type Hub interface {
	// Open is called once per stream, after authentication. An error made by
	// google.golang.org/grpc/status ends the stream with that status
	// (InvalidArgument for a node nobody can serve, Unavailable while not ready);
	// any other error becomes Unavailable.
	Open(ctx context.Context, c *Client) (Feed, error)
}

// A Feed is what one client is to be sent. Its methods are called by several
// goroutines at a time, Next by one alone; none is called after Close.
type Feed interface {
	// Subscribe changes what the client wants of a type. It does not block; the
	// answer arrives from Next.
	//
	// Neither add nor remove holds "*": wildcard is whether, after this call, the
	// client wants everything of the type, besides the names it gave.
	// A name in add is to be sent even if it was sent before: this is how a client
	// asks for it again; and so is everything, if a call without names says wildcard
	// a second time. A name that does not exist is answered in Removed (delta) or by a body
	// that says so (an empty RouteConfiguration, an empty ClusterLoadAssignment).
	//
	// The first Subscribe of a type is always answered, with Full set, even
	// when there is nothing to send: clients wait for it.
	Subscribe(typeURL string, add, remove []string, wildcard bool)

	// Next blocks until something is to be sent. Updates come in the order in which they must be sent.
	// An error ends the stream, as for Open.
	Next(ctx context.Context) (*Update, error)

	// Ack and Nack report what the client made of an Update. An Update which needed
	// no message, since the client held it all, is acknowledged by the Server itself.
	// A client may change its mind about an Update: what it says last of a nonce counts, also of one that
	// the Feed does not remember.
	Ack(typeURL, nonce string)
	Nack(typeURL, nonce, detail string)

	// Close is called once, when the stream has ended.
	Close()
}

// A Resource is one named piece of configuration. It may be shared between
// clients; nobody writes to it.
type Resource struct {
	Name string
	// Version is opaque. On reconnecting, a delta client tells the versions it holds and an equal,
	// non-empty one is not sent again. Leave it empty where a client needs the body
	// regardless: an Envoy whose cluster changed waits for endpoints, changed or not.
	Version string
	Aliases []string // other names by which a delta client may ask for it
	Body    *anypb.Any
}

// An Update is one response to be sent, or one that was received.
// It may be shared between clients; nobody writes to it.
type Update struct {
	TypeURL string
	Version string // of the whole, for people who read
	// Nonce is echoed in Ack or Nack and must be unique on the stream. If empty, the Server chooses one.
	Nonce     string
	Resources []Resource
	Removed   []string
	// Full means that Resources is the complete set of what the client wants, as
	// in a first answer. On a delta stream, what a reconnecting client holds and a Full
	// Update lacks is removed; otherwise Removed must name it.
	Full bool
}

// Names of resource types that the protocol itself treats differently from others.
const (
	typePrefix = "type.googleapis.com/"

	typeListener  = typePrefix + "envoy.config.listener.v3.Listener"
	typeCluster   = typePrefix + "envoy.config.cluster.v3.Cluster"
	typeRoute     = typePrefix + "envoy.config.route.v3.RouteConfiguration"
	typeVHost     = typePrefix + "envoy.config.route.v3.VirtualHost"
	typeEndpoints = typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
	typeSecret    = typePrefix + "envoy.extensions.transport_sockets.tls.v3.Secret"
	typeExtension = typePrefix + "envoy.config.core.v3.TypedExtensionConfig"

	wildcardName = "*"
)

// namedOnly reports whether an empty subscription to a type means nothing rather
// than everything.
func namedOnly(typeURL string) bool {
	switch typeURL {
	case typeRoute, typeVHost, typeEndpoints, typeSecret, typeExtension:
		return true
	}
	return false
}

// fullState reports whether each state-of-the-world response of a type holds
// everything, so that absence means removal.
func fullState(typeURL string, wildcard bool) bool {
	return wildcard || typeURL == typeListener || typeURL == typeCluster
}
