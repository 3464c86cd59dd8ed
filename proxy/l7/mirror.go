// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// mirrorFor bounds a mirrored request whose route has no timeout.
const mirrorFor = 15 * time.Second

// mirror sends copies of the request where the route wants them. Nobody waits
// for them. Only a request whose body is small, or none, is copied: one that is
// still coming would have to be kept for it.
func (x *exchange) mirror() {
	mirrors := x.decision.Route.Forward.Mirrors
	if len(mirrors) == 0 || x.body.state == bodyTunneled {
		return
	}
	for i := range mirrors {
		m := &mirrors[i]
		if f := m.Fraction; f != nil && x.Random%uint64(f.Per) >= uint64(f.Of) {
			continue
		}
		cluster := x.table.Refs[x.decision.Route.Mirrors[i]].Load()
		server := x.site.server
		if cluster == nil || x.body.state == bodyPumped {
			server.stats.mirrorsSkipped.Inc()
			continue
		}
		if server.mirrors.Add(1) > server.cfg.MaxMirrors {
			server.mirrors.Add(-1)
			server.stats.mirrorsSkipped.Inc()
			continue
		}
		s := x.shadow(m)
		go func() {
			defer server.mirrors.Add(-1)
			s.send(cluster)
		}()
	}
}

// A shadow is a request of its own: it outlives the exchange it was copied from.
type shadow struct {
	req     message.Request
	body    []byte
	trailer *message.Header
	pick    upstream.Request
	limit   time.Duration
}

func (x *exchange) shadow(m *route.Mirror) *shadow {
	r := x.Request
	s := &shadow{req: *r, body: slices.Clone(x.body.buf), limit: x.limits.total}
	s.req.Method, s.req.Scheme = strings.Clone(r.Method), strings.Clone(r.Scheme)
	s.req.Path, s.req.Authority = strings.Clone(r.Path), strings.Clone(r.Authority)
	s.req.Header = r.Header.Clone()
	if t := x.body.trailer; t != nil {
		c := t.Clone()
		s.trailer = &c
	}
	if !m.NoHostSuffix {
		host := route.WithoutPort(s.req.Authority)
		s.req.Authority = host + "-shadow" + s.req.Authority[len(host):]
	}
	if s.limit <= 0 {
		s.limit = mirrorFor
	}
	s.pick = upstream.Request{Version: r.Version, OriginalDst: x.Conn.OriginalDst, Client: x.Conn.Remote, Deadline: time.Now().Add(s.limit)}
	return s
}

// send makes one attempt and reads the response away.
func (s *shadow) send(c *upstream.Cluster) {
	if c.Admit() != nil {
		return
	}
	defer c.Leave()
	host, f := c.Pick(&s.pick)
	if f != nil {
		return
	}
	lease, f := c.Open(host, &s.pick)
	if f != nil {
		return
	}
	_ = lease.SetReadDeadline(s.pick.Deadline)
	_ = lease.SetWriteDeadline(s.pick.Deadline)
	status, err := s.exchange(lease.Stream)
	o := upstream.Outcome{Status: status, Reusable: err == nil}
	if err != nil {
		o.Fault = lease.Fault(err)
		if isTimeout(err) {
			o.Fault = &fault.Fault{Side: fault.Upstream, Kind: fault.Timeout, Sent: true, Err: err}
		}
		lease.Abort(codeCancel)
	}
	lease.Done(o)
}

func (s *shadow) exchange(st upstream.Stream) (int, error) {
	whole := len(s.body) > 0 || s.req.ContentLength != 0
	if err := st.WriteHead(&s.req, !whole); err != nil {
		return 0, err
	}
	if whole {
		if _, err := st.Write(s.body); err != nil {
			return 0, err
		}
		if err := st.Finish(s.trailer); err != nil {
			return 0, err
		}
	}
	var resp message.Response
	for resp.Status < 200 {
		if err := st.ReadHead(&resp); err != nil {
			return 0, err
		}
		if resp.Status == 101 {
			return 101, errors.New("a mirrored request was switched to another protocol")
		}
	}
	scratch := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(scratch)
	for {
		if _, err := st.Read(scratch[:]); err == io.EOF {
			return resp.Status, nil
		} else if err != nil {
			return resp.Status, err
		}
	}
}
