// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"time"

	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/demand"
	"github.com/meltemi/meltemi/proxy/demand/keep"
	"github.com/meltemi/meltemi/xds"
)

// patience is how long the control plane is waited for at the start before what
// was kept comes into force: what it says is newer, policies above all.
const patience = 3 * time.Second

// keptTypes are the resources that are kept, in the order in which they are
// brought back: first what says which others are wanted, then what is named before what names it.
func keptTypes() []string {
	return []string{demand.TypeAddress, typeNames, config.TypeCluster, config.TypeEndpoint, config.TypeListener, config.TypeRoute}
}

// newKeeper returns the handler of updates: p, behind a keeper if there is to be one.
func (p *Proxy) newKeeper() (xds.Handler, error) {
	if p.cfg.State == "" {
		return p, nil
	}
	cfg := keep.Defaults(p.cfg.State, p.cfg.Node.Identity().String()+" "+p.cfg.Node.Name)
	cfg.Types, cfg.Log = keptTypes(), p.cfg.Logs.Logger("keep")
	if p.demand != nil {
		cfg.Notes = p.demand.Keys
	}
	var err error
	p.keeper, err = keep.New(cfg, p)
	return p.keeper, err
}

// restore asks at once about the destinations that were used before, and if the
// control plane is away puts in force what it said of them.
func (p *Proxy) restore(ctx context.Context) error {
	defer func() { <-ctx.Done() }()
	was, err := p.keeper.Load()
	if err != nil {
		p.log.Warn("what was in use before is not known", "error", err)
	}
	if p.demand != nil {
		p.demand.Warm(was.Notes)
	}
	wait := time.NewTimer(patience)
	defer wait.Stop()
	select {
	case <-p.reached:
	case <-ctx.Done():
	case <-wait.C:
		if n := p.keeper.Restore(was); n > 0 {
			p.log.Warn("the control plane is away: what was in use before is in force", "resources", n, "written", was.At)
		}
	}
	return nil
}
