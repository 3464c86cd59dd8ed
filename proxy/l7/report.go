// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import "github.com/meltemi/meltemi/proxy/l7/sanitize"

// Moved notes that bytes of the request's body have come, and counts the messages in them.
func (x *exchange) Moved(p []byte) {
	x.moved()
	if x.CountMessages {
		x.asked.Pass(p)
		x.countMessages()
	}
}

// answers counts the messages in what comes of the response's body.
func (x *exchange) answers(p []byte) {
	if x.answering {
		x.answered.Pass(p)
		x.countMessages()
	}
}

// beginMessages finds out where messages count, now that it is known whose they are, and whether the response has any.
func (x *exchange) beginMessages() {
	if !x.CountMessages || x.metered.Load() {
		return
	}
	x.answering = sanitize.IsGRPC(x.Response.Header.Get("content-type"))
	x.meters = x.site.http.Chain.Meters(&x.Exchange, x.meters[:0])
	x.metered.Store(true)
	x.countMessages()
}

// countMessages counts those that have begun to pass. Until it is known where, they wait.
func (x *exchange) countMessages() {
	if !x.metered.Load() {
		return
	}
	asked, answered := x.asked.Take(), x.answered.Take()
	if asked == 0 && answered == 0 {
		return
	}
	for _, m := range x.meters {
		m.Count(x.Conn.ID, asked, answered)
	}
}
