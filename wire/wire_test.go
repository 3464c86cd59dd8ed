// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/meltemi/meltemi/wire/nds"
	"github.com/meltemi/meltemi/wire/security"
	"github.com/meltemi/meltemi/wire/workload"
	"github.com/meltemi/meltemi/wire/zds"
)

// A number that changes breaks every peer silently, so the ones that are easily
// "tidied" are held here.
func TestFieldNumbersAreIstios(t *testing.T) {
	for _, c := range []struct {
		m      proto.Message
		name   string
		fields map[string]protoreflect.FieldNumber
	}{
		{&workload.Address{}, "istio.workload.Address", map[string]protoreflect.FieldNumber{"workload": 1, "service": 2}},
		{&workload.Workload{}, "istio.workload.Workload", map[string]protoreflect.FieldNumber{
			"uid": 20, "name": 1, "namespace": 2, "addresses": 3, "hostname": 21, "network": 4, "tunnel_protocol": 5, "trust_domain": 6,
			"service_account": 7, "waypoint": 8, "network_gateway": 19, "node": 9, "canonical_name": 10, "canonical_revision": 11,
			"workload_type": 12, "workload_name": 13, "native_tunnel": 14, "application_tunnel": 23, "services": 22,
			"authorization_policies": 16, "status": 17, "cluster_id": 18, "locality": 24, "network_mode": 25, "extensions": 26, "capacity": 27,
		}},
		{&workload.Service{}, "istio.workload.Service", map[string]protoreflect.FieldNumber{
			"addresses": 4, "ports": 5, "subject_alt_names": 6, "waypoint": 7, "load_balancing": 8, "ip_families": 9, "extensions": 10,
			"canonical": 11, "ingress_use_waypoint": 12, "weighted_waypoints": 13, "visibility": 14,
		}},
		{&workload.GatewayAddress{}, "istio.workload.GatewayAddress", map[string]protoreflect.FieldNumber{"hostname": 1, "address": 2, "hbone_mtls_port": 3}},
		{&security.Authorization{}, "istio.security.Authorization", map[string]protoreflect.FieldNumber{"scope": 3, "action": 4, "rules": 5, "dry_run": 6}},
		{&security.Clause{}, "istio.security.Clause", map[string]protoreflect.FieldNumber{"matches": 2}},
		{&security.Match{}, "istio.security.Match", map[string]protoreflect.FieldNumber{
			"namespaces": 1, "principals": 3, "source_ips": 5, "destination_ips": 7, "destination_ports": 9, "service_accounts": 11, "not_service_accounts": 12,
		}},
		{&nds.NameTable{}, "istio.networking.nds.v1.NameTable", map[string]protoreflect.FieldNumber{"table": 1, "name_info": 2}},
		{&zds.WorkloadRequest{}, "istio.workload.zds.WorkloadRequest", map[string]protoreflect.FieldNumber{"add": 1, "del": 2, "snapshot_sent": 3, "keep": 5}},
		{&zds.DelWorkload{}, "istio.workload.zds.DelWorkload", map[string]protoreflect.FieldNumber{"uid": 2}},
	} {
		d := c.m.ProtoReflect().Descriptor()
		if string(d.FullName()) != c.name {
			t.Errorf("%s, want %s", d.FullName(), c.name)
		}
		for name, number := range c.fields {
			if f := d.Fields().ByName(protoreflect.Name(name)); f == nil || f.Number() != number {
				t.Errorf("%s.%s is not field %d", c.name, name, number)
			}
		}
	}
}
