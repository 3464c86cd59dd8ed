// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/message"
)

// A relay takes requests with a Server and sends them on with ClientConns: what
// a proxy does, and nothing else.
type relay struct {
	upstream string
	mu       sync.Mutex
	conn     *ClientConn
}

// startRelay returns the address of a relay in front of upstream.
func startRelay(t testing.TB, upstream string) string {
	t.Helper()
	checkLeaks(t)
	r := &relay{upstream: upstream}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	var servers sync.Map
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s := NewServer(nc, ServerDefaults(), r.handle)
			servers.Store(s, nil)
			wg.Go(func() { _ = s.Serve(nil) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		servers.Range(func(s, _ any) bool { s.(*Server).Close(); return true })
		wg.Wait()
		if r.conn != nil {
			r.conn.Close()
			await(t, r.conn.Done())
		}
	})
	return l.Addr().String()
}

func (r *relay) open() (*ClientStream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil || r.conn.Available() == 0 {
		nc, err := net.Dial("tcp", r.upstream)
		if err != nil {
			return nil, err
		}
		if r.conn != nil {
			r.conn.Drain()
		}
		if r.conn, err = NewClientConn(nc, ClientDefaults()); err != nil {
			return nil, err
		}
	}
	return r.conn.Open()
}

func (r *relay) handle(down *ServerStream) {
	up, err := r.open()
	if err != nil {
		reply(down, 503, err.Error())
		return
	}
	down.OnReset(func() { up.Abort(uint32(CodeCancel)) })
	defer up.Abort(uint32(CodeCancel))
	if err := up.WriteHead(down.Request(), down.Request().ContentLength == 0); err != nil {
		reply(down, 503, err.Error())
		return
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if pipe(up, down) != nil {
			up.Abort(uint32(CodeCancel))
		}
	}()
	err = respond(down, up)
	var se StreamError
	if errors.As(err, &se) {
		down.Abort(uint32(se.Code))
	} else if err != nil {
		down.Abort(uint32(CodeInternal))
	}
	up.Abort(uint32(CodeCancel)) // ends the pipe, if it goes on
	_ = down.SetReadDeadline(time.Unix(1, 0))
	<-sent
}

func respond(down *ServerStream, up *ClientStream) error {
	var resp message.Response
	for {
		if err := up.ReadHead(&resp); err != nil {
			return err
		}
		end := resp.ContentLength == 0 && resp.Status >= 200
		if err := down.WriteHead(&resp, end); err != nil || end {
			return err
		}
		if resp.Status >= 200 {
			return pipe(down, up)
		}
	}
}

type writer interface {
	io.Writer
	Flush() error
	Finish(*message.Header) error
}

type reading interface {
	io.Reader
	Trailer() *message.Header
}

func pipe(to writer, from reading) error {
	if err := to.Flush(); err != nil {
		return err
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			if err := to.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return to.Finish(from.Trailer())
		}
		if err != nil {
			return err
		}
	}
}

func startInterop(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := grpc.NewServer(orca.CallMetricsServerOption(nil))
	testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func dialGRPC(t testing.TB, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	must(t, err)
	t.Cleanup(func() { cc.Close() })
	return cc
}

// TestGRPC runs gRPC's interoperability cases that need no credentials between
// gRPC's own client and server, with both our ends in the middle.
func TestGRPC(t *testing.T) {
	cc := dialGRPC(t, startRelay(t, startInterop(t)))
	tc := testgrpc.NewTestServiceClient(cc)
	simple := func(f func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context) {
		return func(ctx context.Context) { f(ctx, tc) }
	}
	cases := map[string]func(context.Context){
		"empty_unary":                 simple(interop.DoEmptyUnaryCall),
		"large_unary":                 simple(interop.DoLargeUnaryCall),
		"client_streaming":            simple(interop.DoClientStreaming),
		"server_streaming":            simple(interop.DoServerStreaming),
		"ping_pong":                   simple(interop.DoPingPong),
		"empty_stream":                simple(interop.DoEmptyStream),
		"timeout_on_sleeping_server":  simple(interop.DoTimeoutOnSleepingServer),
		"cancel_after_begin":          simple(interop.DoCancelAfterBegin),
		"cancel_after_first_response": simple(interop.DoCancelAfterFirstResponse),
		"custom_metadata":             simple(interop.DoCustomMetadata),
		"status_code_and_message":     simple(interop.DoStatusCodeAndMessage),
		"special_status_message":      simple(interop.DoSpecialStatusMessage),
		"unimplemented_method":        func(ctx context.Context) { interop.DoUnimplementedMethod(ctx, cc) },
		"unimplemented_service": func(ctx context.Context) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
		},
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			f(ctx)
		})
	}
}

func TestGRPCMetricsInTrailers(t *testing.T) {
	cc := dialGRPC(t, startRelay(t, startInterop(t)), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	interop.DoORCAPerRPCTest(ctx, testgrpc.NewTestServiceClient(cc))
}

// TestGRPCSoak keeps many calls, large and small, on one connection.
func TestGRPCSoak(t *testing.T) {
	addr := startRelay(t, startInterop(t))
	cc := dialGRPC(t, addr)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			tc := testgrpc.NewTestServiceClient(cc)
			for j := range 10 {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				size := int32(1 + (i*j*7919)%300_000)
				var p peer.Peer
				resp, err := tc.UnaryCall(ctx, &testgrpc.SimpleRequest{
					ResponseSize: size, Payload: &testgrpc.Payload{Body: bytes.Repeat([]byte("x"), int(size/2))},
				}, grpc.Peer(&p))
				if err != nil || len(resp.GetPayload().GetBody()) != int(size) {
					t.Errorf("call %d.%d: %v", i, j, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// A deadline at the client cancels the call at the server, through both ends.
func TestGRPCCancelReachesTheServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	begun, seen := make(chan struct{}), make(chan error, 1)
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		close(begun)
		<-stream.Context().Done()
		seen <- stream.Context().Err()
		return status.FromContextError(stream.Context().Err()).Err()
	}))
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	cc := dialGRPC(t, startRelay(t, l.Addr().String()))
	ctx, cancel := context.WithCancel(context.Background())
	str, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/a.B/C")
	must(t, err)
	<-begun
	cancel()
	if err := str.RecvMsg(nil); status.Code(err) != codes.Canceled {
		t.Errorf("client: %v", err)
	}
	select {
	case err := <-seen:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("server: %v", err)
		}
	case <-time.After(patience):
		t.Error("the server was not told")
	}
}
