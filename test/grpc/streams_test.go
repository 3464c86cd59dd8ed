// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/test/mesh"
)

const most = 32 << 20 // bytes of a message

// A server says what its callers did.
type server struct {
	testpb.UnimplementedTestServiceServer
	begun, cancelled chan struct{}
}

func (s *server) EmptyCall(context.Context, *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, nil
}

// UnaryCall answers with as much as it was sent, after a head and before a trailer.
func (s *server) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	_ = grpc.SetHeader(ctx, metadata.Pairs("head", "h"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("trail", "t", "trail-bin", "\x00\x01\xff"))
	if want := in.GetResponseStatus(); want != nil {
		return nil, status.Error(codes.Code(want.GetCode()), want.GetMessage())
	}
	return &testpb.SimpleResponse{Payload: in.GetPayload()}, nil
}

// FullDuplexCall answers each message with itself, after its interval.
func (s *server) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	s.begun <- struct{}{}
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			s.cancelled <- struct{}{}
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

func startServer(t *testing.T) (*server, netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{begun: make(chan struct{}, 1000), cancelled: make(chan struct{}, 1000)}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(most), grpc.MaxSendMsgSize(most))
	testpb.RegisterTestServiceServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(ln) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return s, netip.MustParseAddrPort(ln.Addr().String())
}

func (w *way) client(t *testing.T) testpb.TestServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(w.Local.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(most), grpc.MaxCallSendMsgSize(most)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := testpb.NewTestServiceClient(conn)
	mesh.Eventually(t, "the first call", func() error {
		_, err := c.EmptyCall(t.Context(), &testpb.Empty{})
		return err
	})
	return c
}

func payload(n int) *testpb.Payload {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return &testpb.Payload{Body: b}
}

func TestCalls(t *testing.T) {
	s, addr := startServer(t)
	w := newWay(t, "GRPC", addr)
	c := w.client(t)

	t.Run("large messages", func(t *testing.T) {
		for _, n := range []int{0, 1, 16<<10 - 5, 1 << 20, 16 << 20} {
			p := payload(n)
			var head, trail metadata.MD
			out, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: p}, grpc.Header(&head), grpc.Trailer(&trail))
			if err != nil || string(out.GetPayload().GetBody()) != string(p.GetBody()) {
				t.Errorf("%d bytes: %d came back, %v", n, len(out.GetPayload().GetBody()), err)
			}
			if fmt.Sprint(head["head"], trail["trail"], trail["trail-bin"]) != "[h] [t] [\x00\x01\xff]" {
				t.Errorf("head %v, trailer %v", head, trail)
			}
		}
	})
	t.Run("status", func(t *testing.T) {
		for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
			text := "why: ünï % \t\n"
			_, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: int32(code), Message: text}})
			if st := status.Convert(err); st.Code() != code || st.Message() != text {
				t.Errorf("want %v: %v", code, err)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		for range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := c.FullDuplexCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			<-s.begun
			cancel()
			if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
				t.Errorf("the caller saw %v", err)
			}
			<-s.cancelled // or the test ends by its deadline
		}
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		stream, err := c.FullDuplexCall(ctx)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("the caller saw %v", err)
		}
	})
	t.Run("many streams", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if err := pingPong(t.Context(), c, 20, 1000+i); err != nil {
					t.Errorf("stream %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	})
	w.secured(t, "grpc.testing", "application/grpc")
}

// pingPong sends n messages on one stream and waits for each answer.
func pingPong(ctx context.Context, c testpb.TestServiceClient, n, size int) error {
	stream, err := c.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	p := payload(size)
	for range n {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: p}); err != nil {
			return err
		}
		out, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(out.GetPayload().GetBody()) != size {
			return fmt.Errorf("%d bytes came back of %d", len(out.GetPayload().GetBody()), size)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ended with %w", err)
	}
	return nil
}

// TestAStreamOutlivesChanges keeps one stream while routes and traffic rules of its
// own service change.
func TestAStreamOutlivesChanges(t *testing.T) {
	_, addr := startServer(t)
	w := newWay(t, "GRPC", addr)
	c := w.client(t)
	stream, err := c.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	turn := func() {
		t.Helper()
		err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(100)})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatalf("the stream was cut: %v", err)
		}
	}
	for i := range 20 {
		text := fmt.Sprintf("change %d", i)
		w.Write("route.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app}
spec:
  hosts: [app.mesh]
  http:
  - match: [{uri: {exact: /grpc.testing.TestService/UnaryCall}}]
    fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
    headers: {response: {set: {change: %q}}}
    route: [{destination: {host: app.mesh}}]
  - route: [{destination: {host: app.mesh}}]
    timeout: %ds
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: app}
spec:
  host: app.mesh
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: %d}}}
`, text, 100+i, 500+i))
		mesh.Eventually(t, text, func() error {
			turn()
			var head metadata.MD
			_, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{}, grpc.Header(&head))
			if status.Code(err) != codes.ResourceExhausted {
				return fmt.Errorf("%w, head %v", err, head)
			}
			return nil
		})
		if i%2 == 1 {
			w.Remove("route.yaml")
			mesh.Eventually(t, "without "+text, func() error {
				turn()
				_, err := c.UnaryCall(t.Context(), &testpb.SimpleRequest{})
				return err
			})
		}
	}
	turn()
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream ended with %v", err)
	}
}
