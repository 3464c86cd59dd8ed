// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"io"
	"testing"

	"github.com/meltemi/meltemi/message"
)

// One exchange over a pooled connection and back: pick, lease, both ends of the
// codec and the kernel's loopback.
func BenchmarkExchange(b *testing.B) {
	for _, v := range both {
		b.Run(v.name, func(b *testing.B) {
			o := newOrigin(b, nil)
			c, _ := toOrigin(b, o.addr(), v.spec)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := &Request{}
				req := &message.Request{Method: "GET", Authority: "a.test", Path: "/x"}
				var resp message.Response
				buf := make([]byte, 100)
				for pb.Next() {
					h, f := c.Pick(r)
					if f != nil {
						b.Fatal(f)
					}
					l, f := c.Open(h, r)
					if f != nil {
						b.Fatal(f)
					}
					if l.WriteHead(req, true) != nil || l.ReadHead(&resp) != nil {
						b.Fatal("exchange failed")
					}
					for err := error(nil); err != io.EOF; {
						if _, err = l.Read(buf); err != nil && err != io.EOF {
							b.Fatal(err)
						}
					}
					l.Done(Outcome{Status: 200, Reusable: true})
				}
			})
		})
	}
}

// The pool alone: an idle connection taken, checked and put back.
func BenchmarkTakeIdle(b *testing.B) {
	o := newOrigin(b, nil)
	c, h := toOrigin(b, o.addr(), nil)
	roundTrip(b, c, h, &Request{})
	r := &Request{}
	b.ReportAllocs()
	for b.Loop() {
		one := h.pool.takeIdle(c, r)
		h.pool.returnSingle(one, true)
	}
}
