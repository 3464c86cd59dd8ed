// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package mirror sends copies of requests to clusters whose answers nobody waits for.
package mirror

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// scratchSize is what is read away at once.
const scratchSize = 8 << 10

var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// codeCancel is RFC 9113's CANCEL.
const codeCancel = 8

// mirrorFor bounds a mirrored request whose route has no timeout.
const mirrorFor = 15 * time.Second

// A Shadow is a copy of a request: it outlives the exchange it was copied from.
type Shadow struct {
	req     message.Request
	body    []byte
	trailer *message.Header
	pick    upstream.Request
}

// New copies a request, whose body is whole, as m wants it. limit is how long
// the copy may take; 0: mirrorFor. pick is what balancing may know.
func New(r *message.Request, body []byte, trailer *message.Header, m *route.Mirror, limit time.Duration, pick upstream.Request) *Shadow {
	if limit <= 0 {
		limit = mirrorFor
	}
	pick.Deadline = time.Now().Add(limit)
	s := &Shadow{req: *r, body: slices.Clone(body), pick: pick}
	s.req.Method, s.req.Scheme = strings.Clone(r.Method), strings.Clone(r.Scheme)
	s.req.Path, s.req.Authority = strings.Clone(r.Path), strings.Clone(r.Authority)
	s.req.Header = r.Header.Clone()
	if trailer != nil {
		c := trailer.Clone()
		s.trailer = &c
	}
	if !m.NoHostSuffix {
		host := route.WithoutPort(s.req.Authority)
		s.req.Authority = host + "-shadow" + s.req.Authority[len(host):]
	}
	return s
}

// Send makes one attempt and reads the response away. It returns when that is
// over, within the limit.
func (s *Shadow) Send(c *upstream.Cluster) {
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
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.Fault = &fault.Fault{Side: fault.Upstream, Kind: fault.Timeout, Sent: true, Err: err}
		}
		lease.Abort(codeCancel)
	}
	lease.Done(o)
}

func (s *Shadow) exchange(st upstream.Stream) (int, error) {
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
