// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"encoding/base64"
	"net/netip"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
)

// The headers of metadata exchange.
const (
	peerHeader   = "x-envoy-peer-metadata"
	peerIDHeader = "x-envoy-peer-metadata-id"
)

// A Discovery is a way to learn who a peer is; the first that finds one counts.
type Discovery uint8

// The ways of io.istio.http.peer_metadata.Config.
const (
	FromHeaders Discovery = iota // istio_headers
	FromAddress                  // workload_discovery
)

// PeerMetadataConfig is io.istio.http.peer_metadata.Config.
type PeerMetadataConfig struct {
	Downstream, Upstream []Discovery // downstream_discovery, upstream_discovery
	// TellDownstream and TellUpstream send our own metadata there
	// (downstream_propagation, upstream_propagation with istio_headers).
	TellDownstream, TellUpstream bool
	// SkipExternal tells nothing to clusters outside the mesh (skip_external_clusters).
	SkipExternal bool
	// Labels of ours to tell besides the usual ones (additional_labels).
	Labels []string
}

// PeerMetadata is istio.metadata_exchange for HTTP.
type PeerMetadata struct {
	filter.Pass
	cfg       PeerMetadataConfig
	id, value string
	peers     *filter.Peers
	lookup    func(netip.Addr) *filter.Peer
}

// NewPeerMetadata returns the filter. Self is who we are; its Labels are told as
// far as cfg.Labels names them. Lookup finds a workload by address; it may be
// nil, and it may not block.
func NewPeerMetadata(cfg PeerMetadataConfig, self *filter.Peer, peers *filter.Peers, lookup func(netip.Addr) *filter.Peer) *PeerMetadata {
	p := self.Telling(cfg.Labels)
	return &PeerMetadata{
		cfg: cfg, id: self.ID, value: base64.StdEncoding.EncodeToString(p.Encode()),
		peers: peers, lookup: lookup,
	}
}

// OnRequest learns who the client is and tells the upstream who we are.
func (m *PeerMetadata) OnRequest(x *filter.Exchange) *fault.Fault {
	h := &x.Request.Header
	_, x.PeerAsked = h.Lookup(peerIDHeader)
	if len(m.cfg.Downstream) > 0 {
		x.DownstreamPeer = m.discover(m.cfg.Downstream, h, x.Conn.Remote.Addr())
		strip(m.cfg.Downstream, h)
	}
	if m.cfg.TellUpstream && m.value != "" {
		m.tell(x)
	}
	return nil
}

// tell puts our headers on the request, unless its cluster is none of the mesh's.
func (m *PeerMetadata) tell(x *filter.Exchange) {
	if c := x.Upstream.Spec; c != nil {
		if c.NoMX || m.cfg.SkipExternal && (c.External || c.Name == "PassthroughCluster") {
			return
		}
	}
	x.Request.Header.Set(peerIDHeader, m.id)
	x.Request.Header.Set(peerHeader, m.value)
}

// OnResponse learns who answered, and tells the client who we are if it asked.
func (m *PeerMetadata) OnResponse(x *filter.Exchange) {
	h := &x.Response.Header
	if len(m.cfg.Upstream) > 0 && x.Upstream.Endpoint != nil {
		x.UpstreamPeer = m.discover(m.cfg.Upstream, h, x.Upstream.Remote.Addr())
		strip(m.cfg.Upstream, h)
	}
	if m.cfg.TellDownstream && x.PeerAsked && m.value != "" {
		h.Set(peerIDHeader, m.id)
		h.Set(peerHeader, m.value)
	}
}

func (m *PeerMetadata) discover(ways []Discovery, h *message.Header, addr netip.Addr) *filter.Peer {
	for _, way := range ways {
		switch way {
		case FromHeaders:
			if p := m.fromHeaders(h); p != nil {
				return p
			}
		case FromAddress:
			if m.lookup != nil {
				if p := m.lookup(addr.Unmap()); p != nil {
					return p
				}
			}
		}
	}
	return nil
}

func (m *PeerMetadata) fromHeaders(h *message.Header) *filter.Peer {
	raw, ok := h.Lookup(peerHeader)
	if !ok {
		return nil
	}
	id := h.Get(peerIDHeader)
	if p := m.peers.Get(id, raw); p != nil {
		return p
	}
	b, err := base64.StdEncoding.DecodeString(raw)
	if err != nil {
		return nil
	}
	p, err := filter.DecodePeer(string([]byte(id)), b)
	if err != nil {
		return nil
	}
	m.peers.Put(id, raw, p)
	return p
}

// strip removes what was told, also if another way found the peer first: it is
// not meant for who comes after us.
func strip(ways []Discovery, h *message.Header) {
	for _, way := range ways {
		if way == FromHeaders {
			h.Delete(peerHeader)
			h.Delete(peerIDHeader)
		}
	}
}
