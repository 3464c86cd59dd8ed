// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/wire/workload"
	"github.com/meltemi/meltemi/xds"
)

// TypeAddress is the resource that says what a destination is.
const TypeAddress = "type.googleapis.com/istio.workload.Address"

// A Service is one of the mesh's. Immutable.
type Service struct {
	Name      string
	Namespace mesh.Namespace
	Host      mesh.Hostname
	Addrs     []netip.Addr // none: its workloads are addressed one by one
	Ports     []Port
}

// A Port is one that a service offers.
type Port struct {
	Number, Target uint16
	Protocol       Protocol
}

// port returns the port of that number.
func (s *Service) port(n uint16) (Port, bool) {
	i := slices.IndexFunc(s.Ports, func(p Port) bool { return p.Number == n })
	if i < 0 {
		return Port{}, false
	}
	return s.Ports[i], true
}

// A fact is one resource: a service or a workload.
type fact struct {
	name      string
	names     []string // name and aliases
	service   *Service
	workload  *workload.Workload
	questions int // that it answers
}

func newFact(r xds.Resource) (*fact, error) {
	var m workload.Address
	if r.Body == nil {
		return nil, errors.New("the resource has no body")
	}
	if err := r.Body.UnmarshalTo(&m); err != nil {
		return nil, err
	}
	f := &fact{name: r.Name, names: append([]string{r.Name}, r.Aliases...)}
	slices.Sort(f.names)
	f.names = slices.Compact(f.names)
	switch t := m.GetType().(type) {
	case *workload.Address_Workload:
		f.workload = t.Workload
		return f, nil
	case *workload.Address_Service:
		var err error
		f.service, err = newService(t.Service)
		return f, err
	}
	return nil, errors.New("it is neither a service nor a workload")
}

func newService(m *workload.Service) (*Service, error) {
	if m.GetHostname() == "" {
		return nil, errors.New("service.hostname is empty")
	}
	s := &Service{Name: m.GetName(), Namespace: mesh.Namespace(m.GetNamespace()), Host: mesh.Hostname(m.GetHostname())}
	for i, a := range m.GetAddresses() {
		addr, ok := netip.AddrFromSlice(a.GetAddress())
		if !ok {
			return nil, fmt.Errorf("service.addresses[%d]: %d bytes are no address", i, len(a.GetAddress()))
		}
		s.Addrs = append(s.Addrs, addr.Unmap())
	}
	for i, p := range m.GetPorts() {
		if p.GetServicePort() == 0 || p.GetServicePort() > math.MaxUint16 || p.GetTargetPort() > math.MaxUint16 {
			return nil, fmt.Errorf("service.ports[%d]: %d or %d is no port", i, p.GetServicePort(), p.GetTargetPort())
		}
		s.Ports = append(s.Ports, Port{uint16(p.GetServicePort()), uint16(p.GetTargetPort()), protocolOf(p.GetAppProtocol())})
	}
	return s, nil
}

func protocolOf(p workload.AppProtocol) Protocol {
	switch p {
	case workload.AppProtocol_HTTP11, workload.AppProtocol_HTTP2, workload.AppProtocol_GRPC:
		return HTTP
	case workload.AppProtocol_TCP:
		return TCP
	case workload.AppProtocol_TLS:
		return TLS
	}
	return Unset
}
