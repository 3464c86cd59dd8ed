// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package l7

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/proxy/fault"
	"github.com/meltemi/meltemi/proxy/filter"
	"github.com/meltemi/meltemi/proxy/route"
	"github.com/meltemi/meltemi/proxy/upstream"
)

// interopServer is gRPC's own.
func interopServer(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, interop.NewTestServer())
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return netip.MustParseAddrPort(l.Addr().String())
}

func grpcClient(t *testing.T, r *rig) testpb.TestServiceClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return testpb.NewTestServiceClient(cc)
}

// The cases of gRPC's interoperability suite that need no TLS and no credentials.
// Their helpers end the process if they fail.
func TestGRPCInterop(t *testing.T) {
	r := newRig(t, func(s *setup) {
		zero := time.Duration(0)
		s.specs = append(s.specs, cluster("b", upstream.HTTP2, interopServer(t)))
		s.routes = append(s.routes, to("/", "b", retry("connect-failure,refused-stream,unavailable,cancelled", 2), func(f *route.Forward) { f.MaxGRPCTimeout = &zero }))
	})
	ctx, tc := t.Context(), grpcClient(t, r)
	for name, f := range map[string]func(context.Context, testpb.TestServiceClient, ...grpc.CallOption){
		"empty_unary": interop.DoEmptyUnaryCall, "large_unary": interop.DoLargeUnaryCall, "client_streaming": interop.DoClientStreaming,
		"server_streaming": interop.DoServerStreaming, "ping_pong": interop.DoPingPong, "empty_stream": interop.DoEmptyStream,
		"timeout_on_sleeping_server": interop.DoTimeoutOnSleepingServer, "cancel_after_begin": interop.DoCancelAfterBegin,
		"cancel_after_first_response": interop.DoCancelAfterFirstResponse, "custom_metadata": interop.DoCustomMetadata,
		"status_code_and_message": interop.DoStatusCodeAndMessage, "special_status_message": interop.DoSpecialStatusMessage,
	} {
		t.Run(name, func(*testing.T) { f(ctx, tc) })
	}
	r.settled()
}

// tally has messages counted, and counts them.
type tally struct {
	filter.Pass
	calls, request, response atomic.Uint64
}

func (t *tally) OnRequest(x *filter.Exchange) *fault.Fault {
	x.CountMessages = x.GRPC
	return nil
}

func (t *tally) Messages(*filter.Exchange) filter.MessageMeter { t.calls.Add(1); return t }

func (t *tally) Count(_, request, response uint64) { t.request.Add(request); t.response.Add(response) }

func (t *tally) sum() [2]uint64 { return [2]uint64{t.request.Load(), t.response.Load()} }

// Messages are counted while a call goes on.
func TestGRPCMessages(t *testing.T) {
	told := &tally{}
	r := newRig(t, func(s *setup) {
		s.entries = append(s.entries, filter.Entry{Name: "told", Filter: told})
		s.specs = append(s.specs, cluster("b", upstream.HTTP2, interopServer(t)))
		s.routes = append(s.routes, to("/", "b"))
	})
	tc := grpcClient(t, r)
	call, err := tc.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		ask := &testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 100_000}}, Payload: &testpb.Payload{Body: make([]byte, 40_000)}}
		if err := call.Send(ask); err != nil {
			t.Fatal(err)
		}
		if _, err := call.Recv(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "counted as they pass", func() bool { return told.sum() == [2]uint64{i + 1, i + 1} })
	}
	if err := call.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := call.Recv(); err != io.EOF {
		t.Fatal(err)
	}
	if _, err := tc.UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseSize: 10}); err != nil {
		t.Fatal(err)
	}
	r.settled()
	if got := told.sum(); got != [2]uint64{4, 4} {
		t.Errorf("%v messages, want 4 each way", got)
	}
	// What is no call of gRPC is not reported.
	resp, err := http.Get("http://" + r.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	r.settled()
	if n := told.calls.Load(); n != 2 {
		t.Errorf("asked where messages count %d times for two calls", n)
	}
}

func TestGRPCErrorsOfOurOwn(t *testing.T) {
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("empty", upstream.HTTP2))
		s.routes = append(s.routes, to("/grpc.testing.TestService/EmptyCall", "empty"))
	})
	tc := grpcClient(t, r)
	_, err := tc.EmptyCall(t.Context(), &testpb.Empty{})
	if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "no healthy upstream" {
		t.Errorf("no endpoint: %v", err)
	}
	_, err = tc.UnaryCall(t.Context(), &testpb.SimpleRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("no route: %v", err)
	}
	if lines := strings.Join(r.logged(2), "\n"); !strings.Contains(lines, "200|UH|no_healthy_upstream") || !strings.Contains(lines, "200|NR|route_not_found") {
		t.Errorf("log %s", lines)
	}
}

// A call's deadline is the caller's own: whoever sees it pass first, it has one
// name. A route's timeout is another thing, and so is a reset that comes in time.
func TestGRPCDeadline(t *testing.T) {
	h, _, _ := stuck(t)
	resets := interopServer(t) // as gRPC's own server does at a call's deadline
	addr, zero := backend(t, h), time.Duration(0)
	broken := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(30 * time.Millisecond)
		panic(http.ErrAbortHandler)
	})
	r := newRig(t, func(s *setup) {
		s.specs = append(s.specs, cluster("stuck", upstream.HTTP1, addr), cluster("resets", upstream.HTTP2, resets), cluster("broken", upstream.HTTP2, broken))
		s.routes = append(s.routes,
			to("/deadline", "stuck", func(f *route.Forward) { f.Stream = &route.StreamLimit{GRPCMax: &zero} }),
			to("/honoured", "stuck", func(f *route.Forward) { f.MaxGRPCTimeout = &zero }),
			to("/timeout", "stuck", func(f *route.Forward) { f.Timeout = 20 * time.Millisecond }),
			to("/grpc.testing.TestService/FullDuplexCall", "resets"),
			to("/broken", "broken"))
	})
	const reset = "upstream connect error or disconnect/reset before headers. reset reason: remote reset"
	for _, c := range []struct{ path, timeout, want string }{
		{"/deadline", "20m", "4 downstream duration timeout"},
		{"/honoured", "20m", "4 upstream request timeout"},
		{"/deadline", "0m", "4 "},
		{"/honoured", "0m", "4 "},
		{"/timeout", "0m", "4 "}, // no clock runs for it, but nobody waits
		{"/timeout", "20S", "14 upstream request timeout"},
		{"/broken", "20m", "4 " + reset},
		{"/broken", "20S", "14 " + reset},
		{"/grpc.testing.TestService/FullDuplexCall", "20m", "4 "}, // it answers, or resets: what ends first
	} {
		var body io.Reader = strings.NewReader("x")
		if strings.HasPrefix(c.path, "/grpc") { // one that waits for more
			open, end := io.Pipe()
			defer func() { _ = end.Close() }()
			body = open
		}
		resp, _ := do(t, client(t, true), r.request("POST", c.path, body, "content-type", "application/grpc", "grpc-timeout", c.timeout))
		if got := resp.Header.Get("grpc-status") + " " + resp.Header.Get("grpc-message"); resp.StatusCode != 200 || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s: %d %q, want %q", c.path, c.timeout, resp.StatusCode, got, c.want)
		}
	}
}
