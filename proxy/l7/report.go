// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"time"

	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/sanitize"
)

// beginReports looks whether the response, whose body follows, has messages to count.
func (x *exchange) beginReports() {
	if x.CountMessages && sanitize.IsGRPC(x.Response.Header.Get("content-type")) {
		x.reported = time.Now()
	}
}

// reportAnswer counts the messages in what comes of the response's body, and tells
// the filters if it is time.
func (x *exchange) reportAnswer(p []byte) {
	if x.reported.IsZero() {
		return
	}
	x.answered.Pass(p)
	if every := x.site.http.Chain.Every(); every > 0 && time.Since(x.reported) >= every {
		x.reported = time.Now()
		x.report()
	}
}

// report tells the filters which messages have passed.
func (x *exchange) report() {
	x.Messages = filter.Messages{Request: x.asked.Take(), Response: x.answered.Take()}
	x.site.http.Chain.Report(&x.Exchange)
}
