// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/mesh"
)

// enter counts a stream in, or says why it must come back later. After nil, the
// caller counts it out. Only who is authenticated comes here, so that nobody else uses up what proxies are admitted by.
func (s *Server) enter() error {
	if !s.opening.take() {
		return status.Errorf(codes.ResourceExhausted, "more than %v new streams per second; come back later", s.cfg.StreamsPerSecond)
	}
	if s.streams.Add(1) > int64(s.cfg.MaxStreams) {
		s.streams.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "more than %d streams; come back later or try another control plane", s.cfg.MaxStreams)
	}
	return nil
}

// authenticate says whose stream this is. A peer address that keeps failing is not even looked at; those who
// succeed are not counted, for many proxies may share an address.
func (s *Server) authenticate(ctx context.Context) (string, error) {
	if s.stopping.Err() != nil {
		return "", errStopping()
	}
	if s.cfg.Authenticate == nil {
		return "", nil
	}
	key, counted := peerOf(ctx)
	if counted && !s.failing.take(key, time.Now()) {
		return "", status.Errorf(codes.ResourceExhausted,
			"too many streams from %v could not be authenticated; come back later, at most %v of them per second", key.Addr(), s.cfg.FailuresPerSecond)
	}
	id, err := s.cfg.Authenticate(ctx)
	if err == nil {
		if counted {
			s.failing.giveBack(key)
		}
		return id, nil
	}
	s.cfg.Log.Warn("xds stream refused", "peer", remote(ctx), "error", err)
	if st, ok := status.FromError(err); ok {
		return "", st.Err()
	}
	return "", status.Errorf(codes.Unauthenticated, "the caller's identity could not be verified: %v", err)
}

func peerOf(ctx context.Context) (netip.Prefix, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Prefix{}, false
	}
	return peerKey(p.Addr)
}

// checkIdentity holds what a proxy says of itself against what was verified:
// namespace and service account of its identity and of its metadata must be equal.
// Metadata without a service account is taken as agreeing, as Istio does; a namespace is
// always compared, if need be the one in the node's ID. Either is a string or absent: others may read more
// into another value than we do.
func checkIdentity(c *Client) error {
	if c.Identity == "" {
		return nil
	}
	id, err := mesh.ParseIdentity(c.Identity)
	if err != nil {
		return status.Errorf(codes.PermissionDenied, "the caller's identity is none of this mesh: %v", err)
	}
	meta := c.Node.GetMetadata().GetFields()
	for _, key := range [...]string{"NAMESPACE", "SERVICE_ACCOUNT"} {
		if v := meta[key]; v != nil {
			if _, ok := v.GetKind().(*structpb.Value_StringValue); !ok {
				return status.Errorf(codes.PermissionDenied, "the caller is %s, but %s in its node metadata is not a string", c.Identity, key)
			}
		}
	}
	ns := mesh.Namespace(meta["NAMESPACE"].GetStringValue())
	if ns == "" {
		if node, err := mesh.ParseNodeID(c.Node.GetId()); err == nil {
			ns = node.Namespace
		}
	}
	sa := mesh.ServiceAccount(meta["SERVICE_ACCOUNT"].GetStringValue())
	if id.Namespace != ns || (sa != "" && id.ServiceAccount != sa) {
		return status.Errorf(codes.PermissionDenied,
			"the caller is %s, but its node metadata says namespace %q, service account %q", c.Identity, ns, sa)
	}
	return nil
}
