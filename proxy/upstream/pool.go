// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"net"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
)

// A pool is one host's connections.
type pool struct{ host *Host }

func newPool(h *Host) *pool { return &pool{host: h} }

func (p *pool) open(c *Cluster, _ *Request) (*Lease, *fault.Fault) { return nil, c.noEndpoint }
func (p *pool) drain()                                             {}
func (p *pool) sweep(time.Time)                                    {}
func (p *pool) idle() int                                          { return 0 }
func (p *pool) active() int                                        { return 0 }

func dial(c *Cluster, _ *Host, _ *Request, _ []string) (net.Conn, *fault.Fault) {
	return nil, c.noEndpoint
}
