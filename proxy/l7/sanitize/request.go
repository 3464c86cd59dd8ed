// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package sanitize

import (
	"net/netip"
	"strings"

	"github.com/meltemi/meltemi/message"
	"github.com/meltemi/meltemi/proxy/config"
	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
)

// Facts is what Request found out.
type Facts struct {
	Remote   netip.AddrPort // the client
	Internal bool           // as Envoy understands it
	Edge     bool           // it comes from outside, and we are the first to see it
	GRPC     bool
	Location string // not "": answer 307 with it instead of going on
}

// Faults that need no details of one request.
var (
	missingHost = &fault.Fault{Side: fault.Client, Kind: fault.BadRequest, Status: 400, Details: "missing_host_header",
		Hint: "the request names no host"}
	badPath = &fault.Fault{Side: fault.Client, Kind: fault.BadRequest, Status: 400, Details: "path_normalization_failed",
		Hint: "the path has an escaped slash or zero byte that this listener refuses"}
	noPath = &fault.Fault{Side: fault.Client, Kind: fault.BadRequest, Status: 404, Details: "missing_path_rejected",
		Hint: "the path does not begin with a slash"}
	underscore = &fault.Fault{Side: fault.Client, Kind: fault.BadRequest, Status: 400, Details: "http1.unexpected_underscore",
		Hint: "a header name has an underscore, which this listener refuses"}
	badScheme = &fault.Fault{Side: fault.Client, Kind: fault.BadRequest, Status: 400, Details: "invalid_scheme",
		Hint: "the scheme is neither http nor https"}
)

// Request makes r fit to decide about. element is CertElement of the connection.
// The fault, if any, is the client's.
func Request(r *message.Request, cfg *config.HTTP, conn *filter.Conn, element string) (Facts, *fault.Fault) {
	var facts Facts
	if f := target(r, cfg, conn, &facts); f != nil {
		return facts, f
	}
	h := &r.Header
	if cfg.Underscores != config.UnderscoresAllow && hasUnderscore(h) {
		if cfg.Underscores == config.UnderscoresReject {
			return facts, underscore
		}
		h.DeleteFunc(func(f message.Field) bool { return strings.IndexByte(f.Name, '_') >= 0 })
	}
	var single bool
	facts.Remote, single = client(h, cfg, conn)
	facts.Internal = single && isInternal(facts.Remote.Addr(), cfg)
	facts.Edge = !facts.Internal && cfg.UseRemoteAddress
	clean(h, facts.Internal, facts.Edge)
	if facts.Internal {
		h.Set(internalRequest, "true")
	}
	if facts.Edge && facts.Remote.IsValid() {
		h.Set(externalAddress, facts.Remote.Addr().Unmap().String())
	}
	if s := r.Scheme; s != "" && !strings.EqualFold(s, "http") && !strings.EqualFold(s, "https") {
		return facts, badScheme
	}
	r.Scheme = scheme(h, cfg, conn, r.Scheme)
	cert(h, cfg, conn, element)
	if cfg.Via != "" {
		h.Add("via", cfg.Via)
	}
	facts.GRPC = IsGRPC(h.Get("content-type"))
	return facts, nil
}

// target checks and normalises authority and path.
func target(r *message.Request, cfg *config.HTTP, conn *filter.Conn, facts *Facts) *fault.Fault {
	if r.Authority == "" {
		if r.Version != message.HTTP10 || cfg.HTTP1.DefaultHost == "" {
			return missingHost
		}
		r.Authority = cfg.HTTP1.DefaultHost
	}
	r.Authority = authority(r.Authority, cfg, conn.Local.Port())
	if r.Method == "CONNECT" && r.Protocol == "" {
		return nil
	}
	if r.Path == "*" && r.Method == "OPTIONS" {
		return nil
	}
	if r.Path == "" || r.Path[0] != '/' {
		return noPath
	}
	p, v := path(r.Path, cfg)
	switch v {
	case reject:
		return badPath
	case redirect:
		facts.Location = p
	default:
		r.Path = p
	}
	return nil
}

func hasUnderscore(h *message.Header) bool {
	for _, f := range h.Fields() {
		if strings.IndexByte(f.Name, '_') >= 0 {
			return true
		}
	}
	return false
}

// IsGRPC says whether a content type is application/grpc, or that with a
// message format or parameters.
func IsGRPC(contentType string) bool {
	const grpc = "application/grpc"
	if len(contentType) < len(grpc) || !message.EqualFold(contentType[:len(grpc)], grpc) {
		return false
	}
	return len(contentType) == len(grpc) || contentType[len(grpc)] == '+' || contentType[len(grpc)] == ';'
}
