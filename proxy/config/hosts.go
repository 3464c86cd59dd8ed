// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meltemi/meltemi/proxy/config/decode"
	"github.com/meltemi/meltemi/proxy/config/strict"
)

// A hostRead is a virtual host with the bytes that it was read from. Of a table in which one host of thousands
// differs from the table before, that one is read.
type hostRead struct {
	host *decode.Host
	wire []byte // shared with the table's resource
	hash uint64 // of what it says, in whatever order its maps came
}

type hostList []hostRead

// knownHosts are virtual hosts by the hash of their bytes.
type knownHosts map[uint64]hostRead

const virtualHosts = "virtual_hosts"

// butHosts decodes a route table and leaves its hosts for later.
func butHosts(in *incoming, m proto.Message) (err error) {
	in.hosts, err = strict.UnmarshalBut(in.Body, m, virtualHosts)
	return err
}

// hosts reads the hosts of table m, and says by a hash what it and they say.
func (b *builder) hosts(m *routev3.RouteConfiguration, wires [][]byte, last knownHosts) (hostList, uint64, error) {
	reader := b.reader()
	list := make(hostList, len(wires))
	sum := xxhash.New()
	var eight [8]byte
	add := func(hash uint64) {
		binary.LittleEndian.PutUint64(eight[:], hash)
		_, _ = sum.Write(eight[:])
	}
	add(hashOf(m))
	for i, wire := range wires {
		if old, ok := last[xxhash.Sum64(wire)]; ok && bytes.Equal(old.wire, wire) {
			list[i] = hostRead{old.host, wire, old.hash}
		} else {
			vh := &routev3.VirtualHost{}
			if err := strict.Part(wire, vh, m, virtualHosts, i); err != nil {
				return nil, 0, err
			}
			h, err := reader.Host(m, vh)
			if err != nil {
				return nil, 0, err
			}
			list[i] = hostRead{h, wire, hashOf(vh)}
		}
		add(list[i].hash)
	}
	return list, sum.Sum64(), nil
}

// known are the hosts that need not be read again.
func (l hostList) known() knownHosts {
	out := make(knownHosts, len(l))
	for _, h := range l {
		if h.host.Fixed() {
			out[xxhash.Sum64(h.wire)] = h
		}
	}
	return out
}

// table compiles a route table, and resolves its names.
func (b *builder) table(m *routev3.RouteConfiguration, hosts hostList, hash uint64, version string) (*RouteTable, error) {
	read := make([]*decode.Host, len(hosts))
	for i := range hosts {
		read[i] = hosts[i].host
	}
	t, err := b.reader().Compile(m, read)
	if err != nil {
		return nil, err
	}
	return b.resolve(t, hash, version)
}
