// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package demand

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/wire/nds"
)

// given is the range of addresses that services without one are given.
var given = netip.MustParsePrefix("240.240.0.0/16")

// A Known is which addresses and names belong to the mesh, whether or not this
// workload uses them. A nil one knows nothing, so everything may belong.
type Known struct {
	addrs    map[netip.Addr]struct{}
	prefixes []netip.Prefix
	hosts    map[string]struct{}
	suffixes map[string]struct{} // of wildcards: ".example.com"
}

// NewKnown returns a Known of these, and of the range from which services
// without an address are given one.
func NewKnown(addrs []netip.Addr, prefixes []netip.Prefix, hosts []string) *Known {
	k := &Known{
		addrs: make(map[netip.Addr]struct{}, len(addrs)), prefixes: append(slices.Clone(prefixes), given),
		hosts: make(map[string]struct{}, len(hosts)), suffixes: map[string]struct{}{},
	}
	for _, a := range addrs {
		k.addrs[a.Unmap()] = struct{}{}
	}
	for _, h := range hosts {
		if rest, ok := strings.CutPrefix(h, "*"); ok {
			k.suffixes[rest] = struct{}{}
			continue
		}
		k.hosts[string(mesh.NormalHost(h))] = struct{}{}
	}
	return k
}

// KnownFrom returns what the DNS name table tells of.
func KnownFrom(t *nds.NameTable) *Known {
	var addrs []netip.Addr
	var hosts []string
	for host, info := range t.GetTable() {
		hosts = append(hosts, host)
		for _, ip := range info.GetIps() {
			if a, err := netip.ParseAddr(ip); err == nil { // the DNS server reports the others
				addrs = append(addrs, a)
			}
		}
	}
	return NewKnown(addrs, nil, hosts)
}

// Addr says whether an address may be the mesh's.
func (k *Known) Addr(a netip.Addr) bool {
	if k == nil {
		return true
	}
	a = a.Unmap()
	if _, ok := k.addrs[a]; ok {
		return true
	}
	return slices.ContainsFunc(k.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Host says whether a name may be the mesh's.
func (k *Known) Host(h string) bool {
	if k == nil {
		return true
	}
	if _, ok := k.hosts[h]; ok {
		return true
	}
	for i := strings.IndexByte(h, '.'); i >= 0; {
		if _, ok := k.suffixes[h[i:]]; ok {
			return true
		}
		next := strings.IndexByte(h[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return false
}

// within says whether t may be the mesh's.
func (d *Directory) within(t target) bool {
	k := d.known.Load()
	if t.host != "" {
		return k.Host(t.host)
	}
	return k.Addr(t.addr.Addr())
}

// link is the connection to the control plane.
type link struct {
	up    bool
	since time.Time
	err   error // why it is down
}

// Connected is told of the state of the stream; see xds.ClientConfig.Connected.
func (d *Directory) Connected(up bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link.up != up {
		d.link.up, d.link.since = up, time.Now()
	}
	if up {
		d.link.err = nil
	} else if err != nil {
		d.link.err = err
	}
}

// awayLocked says since when the control plane is away for good.
func (d *Directory) awayLocked() (time.Duration, bool) {
	since := time.Since(d.link.since)
	return since, !d.link.up && since >= d.cfg.Grace
}

// errRefused marks faults where the control plane has answered, and the proxy
// cannot do what it said.
var errRefused = errors.New("refused")

// hopelessLocked is why waiting for e would not help; nil if it may.
func (d *Directory) hopelessLocked(e *entry) *fault.Fault {
	if e.err != nil {
		return &fault.Fault{
			Side: fault.Mesh, Kind: fault.NoCluster, Object: "destination " + e.target.String(), Details: "configuration_refused",
			Hint: "the proxy cannot use what the control plane sent: " + e.err.Error(), Err: errRefused,
		}
	}
	if d.leftLocked(e) <= 0 {
		return d.lateLocked(e)
	}
	return nil
}

// leftLocked is how much longer e is waited for; not positive if no longer. Who is asked before the control plane is
// lost is asked again when it is back.
func (d *Directory) leftLocked(e *entry) time.Duration {
	end := e.begun.Add(d.cfg.Wait)
	switch {
	case !d.link.up:
		end = d.link.since.Add(d.cfg.Grace)
	case d.link.since.After(e.begun):
		end = d.link.since.Add(d.cfg.Wait)
	}
	most := e.begun.Add(d.cfg.Wait + d.cfg.Grace) // the link may come and go
	if !d.within(e.target) {
		most = e.begun.Add(d.cfg.Wait) // it is let through in the end
	}
	if end.After(most) {
		end = most
	}
	return time.Until(end)
}

// lateLocked says that e was not ready in time, and what it lacks.
func (d *Directory) lateLocked(e *entry) *fault.Fault {
	f := &fault.Fault{Side: fault.Mesh, Kind: fault.NoCluster, Object: "destination " + e.target.String()}
	if since, away := d.awayLocked(); away || !d.link.up {
		f.Details, f.Err = "control_plane_unavailable", d.link.err
		f.Hint = fmt.Sprintf("the control plane has been away for %v and this destination was not used before; "+
			"it may be the mesh's, so it is not called without protection", since.Round(time.Second))
		return f
	}
	f.Details = "destination_not_resolved"
	f.Hint = fmt.Sprintf("the control plane has not sent %s within %v", e.missing, d.cfg.Wait)
	return f
}

// admitLocked says whether there is room to find out about t.
func (d *Directory) admitLocked(t target) *fault.Fault {
	full := func(hint string) *fault.Fault {
		d.stats.Refused++
		return &fault.Fault{Side: fault.Mesh, Kind: fault.Overflow, Object: "destination " + t.String(), Details: "too_many_destinations", Hint: hint}
	}
	outside := !d.within(t)
	most := d.cfg.MaxWaiting
	if outside {
		most /= 4 // who scans a network leaves room for the mesh
	}
	switch {
	case len(d.busy) >= most:
		return full("too many destinations are used for the first time at once")
	case len(d.entries)-d.unknown >= d.cfg.MaxDestinations && !d.evictLocked(true):
		return full(fmt.Sprintf("the workload uses %d destinations at once", d.cfg.MaxDestinations))
	case d.unknown >= d.cfg.MaxUnknown && !d.evictLocked(false):
		return full(fmt.Sprintf("the workload uses %d destinations outside the mesh at once", d.cfg.MaxUnknown))
	case outside && !d.scans.take(time.Now()):
		return full("the workload calls many addresses outside the mesh for the first time")
	}
	return nil
}

// A bucket fills with rate tokens a second, up to burst.
type bucket struct {
	rate, burst, level float64
	at                 time.Time
}

func newBucket(rate, burst int) bucket {
	return bucket{rate: float64(rate), burst: float64(burst), level: float64(burst)}
}

func (b *bucket) take(now time.Time) bool {
	if !b.at.IsZero() {
		b.level = min(b.burst, b.level+now.Sub(b.at).Seconds()*b.rate)
	}
	b.at = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}
