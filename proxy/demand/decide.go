// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/wire/workload"
)

// A target is what is looked up: an address, or a host with a port. A host with
// port 0 asks for the service alone.
type target struct {
	addr netip.AddrPort
	host string
	port uint16
}

func (t target) String() string {
	switch {
	case t.host == "":
		return t.addr.String()
	case t.port == 0:
		return t.host
	}
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// A plan is what a destination is. Plans are compared: an equal one changes nothing.
type plan struct {
	known     bool
	protocol  Protocol
	namespace mesh.Namespace
	host      mesh.Hostname
	port      uint16 // of the service; 0: the service alone
	service   *Service
	workload  *workload.Workload
}

// need is what the data path must have for t, for as long as it is used.
//
// What is known to be HTTP needs its host's routes. For everything else the
// listener of the address says which bytes go where: by what they are, by server
// name, by weight. A destination by name has no such listener.
func (p *plan) need(t target) (n config.Need) {
	if !p.known || p.port == 0 {
		return n
	}
	if p.protocol == HTTP || p.protocol == Unset {
		n.Route = net.JoinHostPort(string(p.host), strconv.Itoa(int(p.port)))
	}
	if p.protocol != HTTP {
		n.Cluster = p.cluster()
		if t.host == "" {
			n.Listener = t.addr.Addr().String() + "_" + strconv.Itoa(int(t.addr.Port()))
		}
	}
	return n
}

// early is what saves a round trip where the first answer names it, as most do:
// it is wanted until the destination is ready.
func (p *plan) early() (n config.Need) {
	if p.known && p.protocol == HTTP && p.port != 0 {
		n.Cluster = p.cluster()
	}
	return n
}

// cluster is where everything goes unless a route says otherwise.
func (p *plan) cluster() string {
	return mesh.ClusterName{Direction: mesh.Outbound, Port: int(p.port), Host: p.host}.String()
}

// look says what the control plane has answered to a question: nothing yet, or
// a fact, or that there is none (nil).
type look func(question string) (f *fact, answered bool)

// decide makes the plan for t, from what look tells. Where an answer is
// missing it says which. Network is the client's own.
func decide(t target, network string, look look) (p plan, missing string) {
	question, port := "/"+t.host, t.port
	if t.host == "" {
		question, port = network+"/"+t.addr.Addr().String(), t.addr.Port()
	}
	f, ok := look(question)
	switch {
	case !ok:
		return plan{}, question
	case f == nil:
		return plan{}, ""
	case f.service != nil:
		return forService(f.service, port), ""
	}
	return forWorkload(f.workload, port, look)
}

func forService(s *Service, port uint16) plan {
	if port == 0 {
		return plan{known: true, namespace: s.Namespace, host: s.Host, service: s}
	}
	p, ok := s.port(port)
	if !ok {
		return plan{service: s} // as if it were nobody's, which is what Istio does
	}
	return plan{known: true, protocol: p.Protocol, namespace: s.Namespace, host: s.Host, port: port, service: s}
}

// forWorkload: a workload is called as part of a service without addresses of
// its own (headless). Other workloads that are called directly are not the
// mesh's concern, as in Istio.
func forWorkload(w *workload.Workload, port uint16, look look) (plan, string) {
	for _, name := range slices.Sorted(maps.Keys(w.GetServices())) {
		for _, p := range w.GetServices()[name].GetPorts() {
			if at := p.GetTargetPort(); at != uint32(port) && (at != 0 || p.GetServicePort() != uint32(port)) {
				continue
			}
			f, ok := look(name)
			if !ok {
				return plan{}, name
			}
			if f == nil || f.service == nil || len(f.service.Addrs) > 0 {
				break
			}
			if out := forService(f.service, uint16(p.GetServicePort())); out.known {
				out.workload = w
				return out, ""
			}
		}
	}
	return plan{workload: w}, ""
}
