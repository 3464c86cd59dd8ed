// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"strconv"
	"strings"
)

// Direction is the first part of a cluster's name.
type Direction string

const (
	Outbound   Direction = "outbound"
	Inbound    Direction = "inbound"
	InboundVIP Direction = "inbound-vip" // waypoint: a service behind it
)

// Names of clusters that belong to no service.
const (
	ClusterBlackHole          = "BlackHoleCluster"
	ClusterPassthrough        = "PassthroughCluster"
	ClusterInboundPassthrough = "InboundPassthroughCluster"
)

// ClusterName is the name of a cluster and of its endpoints, taken apart.
// In a waypoint's cluster Subset begins with "tcp" or "http".
type ClusterName struct {
	Direction Direction
	Port      int
	Subset    string // empty for the whole service
	Host      Hostname
}

// String is direction|port|subset|host.
func (c ClusterName) String() string { return c.join("|") }

// SNI is direction_.port_.subset_.host: the form that fits into a ClientHello,
// by which an east-west gateway routes.
func (c ClusterName) SNI() string { return c.join("_.") }

func (c ClusterName) join(sep string) string {
	return string(c.Direction) + sep + strconv.Itoa(c.Port) + sep + c.Subset + sep + string(c.Host)
}

// ParseClusterName reads direction|port|subset|host.
func ParseClusterName(s string) (ClusterName, error) { return parseCluster(s, "|") }

// ParseSNI reads direction_.port_.subset_.host.
func ParseSNI(s string) (ClusterName, error) { return parseCluster(s, "_.") }

func parseCluster(s, sep string) (ClusterName, error) {
	parts := strings.SplitN(s, sep, 5)
	if len(parts) != 4 {
		return ClusterName{}, fmt.Errorf("cluster name %q: want direction%sport%ssubset%shost", clip(s), sep, sep, sep)
	}
	d := Direction(parts[0])
	if d != Outbound && d != Inbound && d != InboundVIP {
		return ClusterName{}, fmt.Errorf("cluster name %q: direction %q is none of outbound, inbound, inbound-vip", clip(s), clip(parts[0]))
	}
	port, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil {
		return ClusterName{}, fmt.Errorf("cluster name %q: port %q is no number from 0 to 65535", clip(s), clip(parts[1]))
	}
	return ClusterName{Direction: d, Port: int(port), Subset: parts[2], Host: Hostname(parts[3])}, nil
}
