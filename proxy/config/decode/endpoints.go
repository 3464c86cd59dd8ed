// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/meltemi/meltemi/proxy/upstream"
)

const defaultOverprovisioning = 140

// Endpoints reads a ClusterLoadAssignment from EDS.
func Endpoints(m *endpointv3.ClusterLoadAssignment) (*upstream.Assignment, error) {
	return endpoints(m, false)
}

// endpoints reads an assignment; names says whether hosts may be names.
func endpoints(m *endpointv3.ClusterLoadAssignment, names bool) (*upstream.Assignment, error) {
	out := &upstream.Assignment{
		Overprovisioning: u32(m.GetPolicy().GetOverprovisioningFactor(), defaultOverprovisioning),
		Localities:       make([]upstream.Locality, 0, len(m.GetEndpoints())),
	}
	localities, hosts := map[uint32]uint64{}, map[uint32]uint64{} // sums of weights by priority
	for i, l := range m.GetEndpoints() {
		loc := upstream.Locality{
			Region: l.GetLocality().GetRegion(), Zone: l.GetLocality().GetZone(), SubZone: l.GetLocality().GetSubZone(),
			Weight: l.GetLoadBalancingWeight().GetValue(), Priority: l.GetPriority(),
			Endpoints: make([]upstream.Endpoint, len(l.GetLbEndpoints())),
		}
		localities[loc.Priority] += uint64(loc.Weight)
		for j, e := range l.GetLbEndpoints() {
			if err := endpoint(&loc.Endpoints[j], e, names); err != nil {
				return nil, fmt.Errorf("endpoints[%d].lb_endpoints[%d]: %w", i, j, err)
			}
			hosts[loc.Priority] += uint64(loc.Endpoints[j].Weight)
		}
		if localities[loc.Priority] > math.MaxUint32 || hosts[loc.Priority] > math.MaxUint32 {
			return nil, fmt.Errorf("endpoints[%d]: the weights of priority %d sum to more than %d", i, loc.Priority, uint32(math.MaxUint32))
		}
		out.Localities = append(out.Localities, loc)
	}
	return out, nil
}

func endpoint(e *upstream.Endpoint, m *endpointv3.LbEndpoint, names bool) error {
	e.Weight = u32(m.GetLoadBalancingWeight(), 1)
	ep := m.GetEndpoint()
	if ep == nil {
		return fmt.Errorf("endpoint is missing")
	}
	e.Hostname = ep.GetHostname()
	if err := address(e, ep.GetAddress(), names); err != nil {
		return fmt.Errorf("endpoint.address: %w", err)
	}
	switch m.GetHealthStatus() {
	case corev3.HealthStatus_HEALTHY:
		e.Health = upstream.Healthy
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
		e.Health = upstream.Unhealthy
	case corev3.HealthStatus_DRAINING:
		e.Health = upstream.Draining
	case corev3.HealthStatus_DEGRADED:
		e.Health = upstream.Degraded
	}
	md := m.GetMetadata().GetFilterMetadata()
	var err error
	if e.Match, err = texts(md["envoy.transport_socket_match"]); err != nil {
		return fmt.Errorf("metadata[envoy.transport_socket_match]: %w", err)
	}
	e.Workload = md["istio"].GetFields()["workload"].GetStringValue()
	e.HashKey = md["envoy.lb"].GetFields()["hash_key"].GetStringValue()
	return nil
}

func address(e *upstream.Endpoint, m *corev3.Address, names bool) error {
	switch a := m.GetAddress().(type) {
	case *corev3.Address_SocketAddress:
		s := a.SocketAddress
		if s.GetProtocol() != corev3.SocketAddress_TCP {
			return fmt.Errorf("protocol %s is not supported", s.GetProtocol())
		}
		port := s.GetPortValue()
		if port > math.MaxUint16 || port == 0 {
			return fmt.Errorf("%d is no port", port)
		}
		addr, err := netip.ParseAddr(s.GetAddress())
		if err != nil {
			if !names {
				return fmt.Errorf("%q is no IP address", s.GetAddress())
			}
			e.Hostname = s.GetAddress()
		} else if names {
			e.Hostname = "" // nothing to resolve
		}
		e.Addr = netip.AddrPortFrom(addr.Unmap(), uint16(port))
	case *corev3.Address_Pipe:
		e.Pipe = a.Pipe.GetPath()
	default:
		return errors.New("the address is missing")
	}
	return nil
}
