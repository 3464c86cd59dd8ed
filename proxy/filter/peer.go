// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/meltemi/meltemi/proxy/peerexchange"
)

// A Peer is the workload at the other end, as it told by metadata exchange or
// as the mesh knows it by its address. Peers are immutable and shared; comparing
// pointers compares most of them.
type Peer struct {
	ID                string // node id; "" if found by address
	Name              string // pod or machine
	Namespace         string
	Workload          string
	WorkloadType      string // deployment, job …
	Cluster           string
	Identity          string // SPIFFE URI
	CanonicalName     string
	CanonicalRevision string
	App, Version      string
	Region, Zone      string
	Labels            map[string]string // the additional ones, may be nil
}

// Labels of a workload that metadata exchange carries besides the additional ones.
const (
	labelName     = "service.istio.io/canonical-name"
	labelRevision = "service.istio.io/canonical-revision"
	labelApp      = "app"
	labelVersion  = "version"
)

// ownerPrefix begins the OWNER of a Kubernetes workload:
// kubernetes://apis/apps/v1/namespaces/NS/deployments/NAME.
const ownerPrefix = "kubernetes://apis/"

// Struct returns p as metadata exchange sends it: a google.protobuf.Struct with
// Istio's node metadata keys.
func (p *Peer) Struct() *structpb.Struct {
	fields := map[string]*structpb.Value{}
	put := func(to map[string]*structpb.Value, key, value string) {
		if value != "" {
			to[key] = structpb.NewStringValue(value)
		}
	}
	put(fields, "NAME", p.Name)
	put(fields, "NAMESPACE", p.Namespace)
	put(fields, "WORKLOAD_NAME", p.Workload)
	put(fields, "CLUSTER_ID", p.Cluster)
	put(fields, "IDENTITY", p.Identity)
	put(fields, "REGION", p.Region)
	put(fields, "AVAILABILITY_ZONE", p.Zone)
	if p.WorkloadType != "" && p.Workload != "" {
		group := "apps/v1"
		switch p.WorkloadType {
		case "job", "cronjob":
			group = "batch/v1"
		case "pod":
			group = "v1"
		}
		put(fields, "OWNER", ownerPrefix+group+"/namespaces/"+p.Namespace+"/"+p.WorkloadType+"s/"+p.Workload)
	}
	labels := map[string]*structpb.Value{}
	for k, v := range p.Labels {
		put(labels, k, v)
	}
	put(labels, labelName, p.CanonicalName)
	put(labels, labelRevision, p.CanonicalRevision)
	put(labels, labelApp, p.App)
	put(labels, labelVersion, p.Version)
	if len(labels) > 0 {
		fields["LABELS"] = structpb.NewStructValue(&structpb.Struct{Fields: labels})
	}
	return &structpb.Struct{Fields: fields}
}

// Telling is what p tells of itself: of its labels only those of the names, besides the usual ones.
func (p *Peer) Telling(labels []string) *Peer {
	told := *p
	told.Labels = maps.Clone(p.Labels)
	maps.DeleteFunc(told.Labels, func(k, _ string) bool { return !slices.Contains(labels, k) })
	return &told
}

// Preamble is Struct as istio-peer-exchange sends it; nil if it cannot be sent.
func (p *Peer) Preamble() []byte {
	b, err := peerexchange.Preamble(p.ID, p.Struct())
	if err != nil { // as for Encode
		return nil
	}
	return b
}

// Encode returns Struct in wire format, the same bytes for the same peer.
func (p *Peer) Encode() []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.Struct())
	if err != nil { // only text that is no UTF-8 can fail: say nothing of ourselves then
		return nil
	}
	return b
}

// maxPeerBytes bounds what a peer may tell of itself.
const maxPeerBytes = 16 << 10

// DecodePeer reads what Encode wrote. What it says is the peer's own claim.
func DecodePeer(id string, b []byte) (*Peer, error) {
	if len(b) > maxPeerBytes {
		return nil, fmt.Errorf("peer metadata of %d bytes; at most %d are read", len(b), maxPeerBytes)
	}
	var s structpb.Struct
	if err := proto.Unmarshal(b, &s); err != nil {
		return nil, errors.New("peer metadata is no google.protobuf.Struct")
	}
	return PeerOf(id, &s), nil
}

// PeerOf draws a Peer from a Struct with Istio's node metadata keys.
func PeerOf(id string, s *structpb.Struct) *Peer {
	get := func(s *structpb.Struct, key string) string { return s.GetFields()[key].GetStringValue() }
	labels := s.GetFields()["LABELS"].GetStructValue()
	p := &Peer{
		ID: id, Name: get(s, "NAME"), Namespace: get(s, "NAMESPACE"), Workload: get(s, "WORKLOAD_NAME"),
		Cluster: get(s, "CLUSTER_ID"), Identity: get(s, "IDENTITY"),
		CanonicalName: get(labels, labelName), CanonicalRevision: get(labels, labelRevision),
		App: get(labels, labelApp), Version: get(labels, labelVersion),
		Region: get(s, "REGION"), Zone: get(s, "AVAILABILITY_ZONE"),
	}
	if owner := get(s, "OWNER"); strings.HasPrefix(owner, ownerPrefix) {
		parts := strings.Split(owner, "/")
		p.WorkloadType = strings.TrimSuffix(parts[len(parts)-2], "s")
		if p.Workload == "" {
			p.Workload = parts[len(parts)-1]
		}
	}
	for k, v := range labels.GetFields() {
		switch k {
		case labelName, labelRevision, labelApp, labelVersion:
		default:
			if p.Labels == nil {
				p.Labels = map[string]string{}
			}
			p.Labels[k] = v.GetStringValue()
		}
	}
	return p
}

// Peers remembers peers by their node id, so that what each request tells again
// is decoded once. Reading takes no lock.
type Peers struct {
	known atomic.Pointer[map[string]remembered]
	mu    sync.Mutex
}

type remembered struct {
	raw  string
	peer *Peer
}

// maxPeers is how many are remembered; a quarter is forgotten when there are more.
const maxPeers = 500

// Get returns the peer of that id if it told the same before.
func (c *Peers) Get(id, raw string) *Peer {
	if m := c.known.Load(); m != nil {
		if r, ok := (*m)[id]; ok && r.raw == raw {
			return r.peer
		}
	}
	return nil
}

// Told returns the peer that said this by istio-peer-exchange; nil if it said nothing of use.
func (c *Peers) Told(preamble []byte) *Peer {
	if len(preamble) == 0 || len(preamble) > maxPeerBytes {
		return nil
	}
	raw := string(preamble)
	if p := c.Get(raw, raw); p != nil {
		return p
	}
	id, metadata, err := peerexchange.Parse(preamble)
	if err != nil || metadata == nil {
		return nil
	}
	p := PeerOf(id, metadata)
	c.put(raw, raw, p)
	return p
}

// Put remembers p. Both strings are copied.
func (c *Peers) Put(id, raw string, p *Peer) { c.put(strings.Clone(id), strings.Clone(raw), p) }

func (c *Peers) put(id, raw string, p *Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := map[string]remembered{}
	if m := c.known.Load(); m != nil {
		next = maps.Clone(*m)
	}
	if len(next) >= maxPeers {
		gone := 0
		for k := range next {
			delete(next, k)
			if gone++; gone == maxPeers/4 {
				break
			}
		}
	}
	next[id] = remembered{raw, p}
	c.known.Store(&next)
}
