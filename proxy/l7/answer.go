// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"strconv"
	"strings"
	"time"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/l7/grpcstatus"
)

// A reply is what a kind of fault looks like to the client and in logs, in
// Envoy's words, where the fault itself does not say otherwise.
type reply struct {
	status  int
	details string
	body    string
	reset   string // Envoy's name of the reset; body and details are made of it
}

// answers is the only place where a fault becomes a response.
var answers = [...]reply{
	fault.NoRoute:          {404, "route_not_found", "", ""},
	fault.NoCluster:        {503, "cluster_not_found", "", ""},
	fault.NoEndpoint:       {503, "no_healthy_upstream", "no healthy upstream", ""},
	fault.Overflow:         {503, "", "", "overflow"},
	fault.ConnectFailure:   {503, "", "", "remote connection failure"},
	fault.ConnectTimeout:   {503, "", "", "connection timeout"},
	fault.ConnectionClosed: {503, "", "", "connection termination"},
	fault.RemoteReset:      {503, "", "", "remote reset"},
	fault.RefusedStream:    {503, "", "", "remote refused stream reset"},
	fault.LocalReset:       {503, "", "", "local reset"},
	fault.UpstreamProtocol: {502, "", "", "protocol error"},
	fault.Timeout:          {504, "response_timeout", "upstream request timeout", ""},
	fault.PerTryTimeout:    {504, "upstream_per_try_timeout", "upstream request timeout", ""},
	fault.IdleTimeout:      {408, "stream_idle_timeout", "stream timeout", ""},
	fault.Denied:           {403, "rbac_access_denied", "RBAC: access denied", ""},
	fault.Unauthenticated:  {401, "jwt_authn_access_denied", "Jwt verification fails", ""},
	fault.Injected:         {503, "fault_filter_abort", "fault filter abort", ""},
	fault.RateLimited:      {429, "local_rate_limited", "local_rate_limited", ""},
	fault.BadRequest:       {400, "bad_request", "", ""},
	fault.TooLarge:         {413, "request_payload_too_large", "", ""},
	fault.ClientGone:       {0, "downstream_remote_disconnect", "", ""},
	fault.MaxDuration:      {408, "max_duration_timeout", "downstream duration timeout", ""},
	fault.Internal:         {500, "internal_error", "", ""},
}

const (
	faultHeader = "x-meltemi-fault"
	overloaded  = "x-envoy-overloaded"
)

// fail ends an exchange because of f: with an answer, or if a response has begun
// or nobody is there to read one, by breaking it off.
func (x *exchange) fail(f *fault.Fault) {
	x.Fault = f
	x.Flags |= flagsOf(f)
	if x.urx {
		x.Flags |= filter.UpstreamRetryLimitExceeded
	}
	a := &answers[f.Kind]
	if x.headSent {
		x.Details = f.Details
		if x.Details == "" || a.reset != "" {
			x.Details = "upstream_reset_after_response_started{" + underscored(a.reset) + "}"
		}
		x.closing = true
		x.down.Abort(codeInternal)
		return
	}
	x.Details = x.detailsOf(f, a)
	if f.Kind == fault.ClientGone {
		x.Response.Reset()
		x.closing = true
		x.down.Abort(codeCancel)
		return
	}
	if x.Cancelled() != nil { // cancelling has made every write fail
		x.closing = true
		_ = x.down.SetWriteDeadline(time.Now().Add(lingerFor))
	}
	x.Local = filter.Local{Status: x.statusOf(f, a), Details: x.Details, Body: x.bodyOf(f, a)}
	if x.Details == answers[fault.MaxDuration].details || x.limits.CallerLeft(x.Start, time.Now()) {
		// Of all limits of ours max_stream_duration alone is called so, as Envoy has it. The caller's own has one name
		// whoever saw it pass: servers that saw it first reset the stream.
		x.Local.GRPC = grpcstatus.DeadlineExceeded
	}
	x.Response.Reset()
	h := &x.Response.Header
	if f.Kind == fault.Overflow {
		h.Add(overloaded, "true")
	}
	if x.site.server.cfg.FaultHeader {
		h.Add(faultHeader, headerSafe(f.Error()))
	}
	x.answer()
}

// flagsOf are the response flags of a failed exchange. Envoy has fewer of them
// for exchanges than for connections: what is wrong with a request has a flag
// only if the codec found it out, and time that is over has none.
func flagsOf(f *fault.Fault) filter.Flags {
	switch {
	case f.Kind == fault.MaxDuration, f.Kind == fault.BadRequest && f.Err == nil:
		return 0
	}
	return filter.FlagsOf(f)
}

func (x *exchange) detailsOf(f *fault.Fault, a *reply) string {
	switch {
	case a.reset != "" && (f.Details == "" || f.Details == a.reset):
		reason := a.reset
		if x.Upstream.Failure != "" {
			reason += "|" + x.Upstream.Failure
		}
		return "upstream_reset_before_response_started{" + underscored(reason) + "}"
	case f.Details != "":
		return f.Details
	}
	return a.details
}

func underscored(s string) string { return strings.ReplaceAll(s, " ", "_") }

// statusOf is the status of the answer. What took too long is the client's fault
// while its request is not complete, and the upstream's afterwards.
func (x *exchange) statusOf(f *fault.Fault, a *reply) int {
	if f.Status != 0 {
		return f.Status
	}
	if f.Kind == fault.IdleTimeout || f.Kind == fault.MaxDuration {
		if !x.body.End().IsZero() {
			return 504
		}
	}
	return a.status
}

func (x *exchange) bodyOf(f *fault.Fault, a *reply) string {
	if f.Body != "" || a.reset == "" {
		if f.Body != "" {
			return f.Body
		}
		return a.body
	}
	var b strings.Builder
	b.WriteString("upstream connect error or disconnect/reset before headers. ")
	if x.Attempts > 1 {
		b.WriteString("retried and the latest ")
	}
	b.WriteString("reset reason: ")
	b.WriteString(a.reset)
	if strings.HasPrefix(x.Upstream.Failure, tlsFailure) { // nothing of addresses
		b.WriteString(", transport failure reason: ")
		b.WriteString(x.Upstream.Failure)
	}
	return b.String()
}

// answer sends x.Local: what we ourselves have to say, failure or not. Fields of
// Response.Header are sent along.
func (x *exchange) answer() {
	l, resp := &x.Local, &x.Response
	resp.Status = l.Status
	if x.Details == "" {
		x.Details = l.Details
	}
	h := &resp.Header
	body := l.Body
	if x.GRPC && !h.Has("grpc-status") {
		resp.Status = 200
		h.Set("content-type", "application/grpc")
		code := l.GRPC
		if code == 0 {
			code = grpcstatus.Of(l.Status)
		}
		h.Set("grpc-status", strconv.Itoa(code))
		if body != "" {
			h.Set("grpc-message", grpcstatus.Message(body))
		}
		body = ""
	}
	resp.ContentLength = int64(len(body))
	if body != "" {
		h.Set("content-length", strconv.Itoa(len(body)))
		if !h.Has("content-type") {
			h.Add("content-type", "text/plain")
		}
	} else {
		h.Delete("content-length")
	}
	x.site.http.Chain.Respond(&x.Exchange)
	x.finishHead()
	x.Mark(filter.ResponseBegin)
	err := x.down.WriteHead(resp, body == "")
	if err == nil && body != "" {
		if _, err = x.down.Write([]byte(body)); err == nil {
			err = x.down.Finish(nil)
			if x.Request.Method != "HEAD" {
				x.Sent += uint64(len(body))
			}
		}
	}
	if err != nil {
		x.closing = true
		x.Flags |= filter.DownstreamConnectionTermination
		x.down.Abort(codeInternal)
	}
	x.headSent = true
	x.Mark(filter.ResponseEnd)
}

// headerSafe makes one field value of a text.
func headerSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
}
