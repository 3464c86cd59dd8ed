// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// tape is a Feed that records what it is told, in words.
type tape struct{ log []string }

func (f *tape) Subscribe(typeURL string, add, remove []string, wildcard bool) {
	f.log = append(f.log, fmt.Sprintf("+%v -%v %v", add, remove, wildcard))
}
func (f *tape) Next(ctx context.Context) (*Update, error) { <-ctx.Done(); return nil, ctx.Err() }
func (f *tape) Ack(_, nonce string)                       { f.log = append(f.log, "ack "+nonce) }
func (f *tape) Nack(_, nonce, detail string)              { f.log = append(f.log, "nack "+nonce+" "+detail) }
func (f *tape) Close()                                    {}

func newConn(d dialect) (*conn, *tape) {
	f := &tape{}
	c := &conn{srv: NewServer(nil, ServerConfig{}), dialect: d, client: &Client{}, feed: f, watches: map[string]*watch{}}
	return c, f
}

// step is one request, or one update that the feed wants sent, and what must
// come of it: what the feed is told, or what is sent.
type step struct {
	req  *request
	up   *Update
	want string
}

func run(t *testing.T, d dialect, steps []step) {
	t.Helper()
	c, f := newConn(d)
	for i, s := range steps {
		f.log = nil
		got := ""
		if s.req != nil {
			if err := c.handle(s.req); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		} else {
			got = sent(c.prepare(s.up))
		}
		if got = strings.Join(append(f.log, got), " "); strings.TrimSpace(got) != s.want {
			t.Errorf("step %d: got %q, want %q", i, got, s.want)
		}
	}
}

// sent is a response in words: its nonce, names and removals.
func sent(m any) string {
	var names []string
	switch m := m.(type) {
	case *discoveryv3.DeltaDiscoveryResponse:
		for _, r := range m.Resources {
			names = append(names, r.Name)
		}
		return fmt.Sprintf("%s %v -%v", m.Nonce, names, m.RemovedResources)
	case *discoveryv3.DiscoveryResponse:
		for _, r := range m.Resources {
			n, _ := firstField(r)
			names = append(names, n)
		}
		return fmt.Sprintf("%s %v", m.Nonce, names)
	}
	return ""
}

func update(typeURL, nonce string, full bool, removed []string, names ...string) *Update {
	u := &Update{TypeURL: typeURL, Nonce: nonce, Full: full, Removed: removed}
	for _, n := range names {
		name, version, _ := strings.Cut(n, "@")
		u.Resources = append(u.Resources, Resource{Name: name, Version: version, Body: body(typeURL, name, version)})
	}
	return u
}

func TestDeltaRequests(t *testing.T) {
	ack := func(typeURL, nonce string) *request { return &request{typeURL: typeURL, nonce: nonce} }
	for name, steps := range map[string][]step{
		"empty first request is a wildcard": {
			{req: &request{typeURL: typeCluster}, want: "+[] -[] true"},
			{up: update(typeCluster, "1", true, nil, "a"), want: "1 [a] -[]"},
			{req: ack(typeCluster, "1"), want: "ack 1"},
			{req: ack(typeCluster, "1"), want: ""}, // twice means nothing
			{req: &request{typeURL: typeCluster}, want: ""},
		},
		"empty first request of endpoints is nothing": {
			{req: &request{typeURL: typeEndpoints}, want: "+[] -[] false"},
			{req: &request{typeURL: typeEndpoints, add: []string{"a", "b", "a"}}, want: "+[a b] -[] false"},
			{req: &request{typeURL: typeEndpoints, remove: []string{"b", "never"}}, want: "+[] -[b] false"},
			{req: &request{typeURL: typeEndpoints, add: []string{"a"}}, want: "+[a] -[] false"}, // asks again
		},
		"subscribing and unsubscribing everything is nothing yet": {
			{req: &request{typeURL: typeAddress, add: []string{"*"}, remove: []string{"*"}}, want: "+[] -[] false"},
			{up: update(typeAddress, "1", true, nil), want: "1 [] -[]"},
			{req: &request{typeURL: typeAddress, add: []string{"n/1"}}, want: "+[n/1] -[] false"},
		},
		"a wildcard can be taken back, names stay": {
			{req: &request{typeURL: typeCluster, add: []string{"*", "x"}}, want: "+[x] -[] true"},
			{req: &request{typeURL: typeCluster, remove: []string{"*"}}, want: "+[] -[] false"},
			{req: &request{typeURL: typeCluster, add: []string{"*"}}, want: "+[] -[] true"},
		},
		"a change may travel with an acknowledgement": {
			{req: &request{typeURL: typeEndpoints, add: []string{"a"}}, want: "+[a] -[] false"},
			{up: update(typeEndpoints, "1", true, nil, "a"), want: "1 [a] -[]"},
			{req: &request{typeURL: typeEndpoints, nonce: "1", add: []string{"b"}}, want: "ack 1 +[b] -[] false"},
			{req: &request{typeURL: typeEndpoints, nonce: "stale", add: []string{"c"}}, want: "+[c] -[] false"},
		},
		"a rejection is told and answered by nothing": {
			{req: &request{typeURL: typeCluster}, want: "+[] -[] true"},
			{up: update(typeCluster, "1", true, nil, "a"), want: "1 [a] -[]"},
			{up: update(typeCluster, "2", false, nil, "a"), want: "2 [a] -[]"},
			{req: ack(typeCluster, "1"), want: "ack 1"},
			{req: &request{typeURL: typeCluster, nonce: "2", nack: true, detail: "no"}, want: "nack 2 no"},
		},
		"reconnecting: equal versions are left out once, what is gone is removed": {
			{req: &request{typeURL: typeCluster, initial: map[string]string{"a": "1", "b": "1", "c": "", "gone": "1"}}, want: "+[] -[] true"},
			{up: update(typeCluster, "1", true, nil, "a@1", "b@2", "c@", "new@1"), want: "1 [b c new] -[gone]"},
			{up: update(typeCluster, "2", false, nil, "a@1"), want: "2 [a] -[]"}, // forced
		},
		"reconnecting with nothing changed still gets a first answer": {
			{req: &request{typeURL: typeCluster, initial: map[string]string{"a": "1"}}, want: "+[] -[] true"},
			{up: update(typeCluster, "1", true, nil, "a@1"), want: "1 [] -[]"},
		},
		"reconnecting by name: held names are wanted, and acknowledged for the client": {
			{req: &request{typeURL: typeEndpoints, add: []string{"a"}, initial: map[string]string{"a": "1", "b": "1"}, remove: []string{"z"}}, want: "+[a b] -[] false"},
			{up: update(typeEndpoints, "1", false, nil, "a@1"), want: "ack 1"},
			{up: update(typeEndpoints, "2", true, nil), want: "2 [] -[]"}, // endpoints are never removed by absence
		},
		"reconnecting: what is asked for once more before the answer is sent, for the client has let go of it": {
			{req: &request{typeURL: typeAddress, add: []string{"ns/a", "net/2"}, initial: map[string]string{"ns/a": "1", "ns/b": "1", "ns/c": "1"}}, want: "+[ns/a net/2 ns/b ns/c] -[] false"},
			{req: &request{typeURL: typeAddress, add: []string{"ns/a"}}, want: "+[ns/a] -[] false"},
			{req: &request{typeURL: typeAddress, add: []string{"net/2"}}, want: "+[net/2] -[] false"},
			{up: &Update{TypeURL: typeAddress, Nonce: "1", Full: true, Resources: []Resource{
				{Name: "ns/a", Version: "1", Body: body(typeAddress, "ns/a", "1")},
				{Name: "ns/b", Version: "1", Aliases: []string{"net/2"}, Body: body(typeAddress, "ns/b", "1")},
				{Name: "ns/c", Version: "1", Body: body(typeAddress, "ns/c", "1")},
			}}, want: "1 [ns/a ns/b] -[]"},
		},
		"nobody asked": {
			{up: update(typeCluster, "1", true, nil, "a"), want: "ack 1"},
		},
	} {
		t.Run(name, func(t *testing.T) { run(t, &delta{}, steps) })
	}
}

func TestStateOfTheWorldRequests(t *testing.T) {
	names := func(n ...string) []string { return n }
	for name, steps := range map[string][]step{
		"wildcard, complete sets": {
			{req: &request{typeURL: typeCluster}, want: "+[] -[] true"},
			{up: update(typeCluster, "1", true, nil, "b", "a"), want: "1 [a b]"},
			{req: &request{typeURL: typeCluster, nonce: "1"}, want: "ack 1"},
			{up: update(typeCluster, "2", false, nil, "c"), want: "2 [a b c]"},
			{up: update(typeCluster, "3", false, names("a")), want: "3 [b c]"},
			{req: &request{typeURL: typeCluster, nonce: "2"}, want: "ack 2"},
			{req: &request{typeURL: typeCluster, nonce: "bogus"}, want: ""},
			{up: update(typeCluster, "4", true, nil), want: "4 []"},
		},
		"endpoints by name, only what changed": {
			{req: &request{typeURL: typeEndpoints, names: names("a", "b")}, want: "+[a b] -[] false"},
			{up: update(typeEndpoints, "1", true, nil, "a", "b"), want: "1 [a b]"},
			{req: &request{typeURL: typeEndpoints, nonce: "1", names: names("a", "b")}, want: "ack 1"},
			{req: &request{typeURL: typeEndpoints, nonce: "1", names: names("a", "b", "c")}, want: "+[c] -[] false"},
			{up: update(typeEndpoints, "2", false, nil, "c"), want: "2 [c]"},
			{req: &request{typeURL: typeEndpoints, nonce: "1", names: names("z")}, want: ""}, // stale
			{req: &request{typeURL: typeEndpoints, nonce: "2", names: names("c")}, want: "ack 2 +[] -[a b] false"},
			{up: update(typeEndpoints, "3", false, names("c")), want: "ack 3"}, // cannot be said
			{req: &request{typeURL: typeEndpoints, nonce: "2"}, want: "+[] -[c] false"},
		},
		"no names end a subscription by name": {
			{req: &request{typeURL: typeEndpoints}, want: ""},
			{req: &request{typeURL: typeEndpoints, names: names("a")}, want: "+[a] -[] false"},
			{up: update(typeEndpoints, "1", true, nil, "a"), want: "1 [a]"},
			{req: &request{typeURL: typeEndpoints, nonce: "1"}, want: "ack 1 +[] -[a] false"},
			{up: update(typeEndpoints, "2", false, nil, "a"), want: "ack 2"},
			{req: &request{typeURL: typeEndpoints, nonce: "1", names: names("a")}, want: "+[a] -[] false"}, // a first request again
		},
		"no nonce begins anew": {
			{req: &request{typeURL: typeEndpoints, names: names("a", "b")}, want: "+[a b] -[] false"},
			{req: &request{typeURL: typeEndpoints, names: names("b", "c")}, want: "+[b c] -[a] false"},
		},
		"listeners by name, then none, then all": {
			{req: &request{typeURL: typeListener, names: names("a", "b")}, want: "+[a b] -[] false"},
			{up: update(typeListener, "1", true, nil, "a", "b"), want: "1 [a b]"},
			{req: &request{typeURL: typeListener, nonce: "1", names: names("b")}, want: "ack 1 +[] -[a] false"},
			{up: update(typeListener, "2", false, nil, "b"), want: "2 [b]"},
			{req: &request{typeURL: typeListener, nonce: "2"}, want: "ack 2 +[] -[b] false"},
			{req: &request{typeURL: typeListener, nonce: "2", names: names("*")}, want: "+[] -[] true"},
			{up: update(typeListener, "3", true, nil, "a", "b"), want: "3 [a b]"},
			{req: &request{typeURL: typeListener, nonce: "3", names: names("a")}, want: "ack 3 +[a] -[] false"},
			{up: update(typeListener, "4", false, nil, "a"), want: "4 [a]"},
		},
		"a rejection may change the names": {
			{req: &request{typeURL: typeEndpoints, names: names("a")}, want: "+[a] -[] false"},
			{up: update(typeEndpoints, "1", true, nil, "a"), want: "1 [a]"},
			{req: &request{typeURL: typeEndpoints, nonce: "1", nack: true, detail: "no", names: names("a")}, want: "nack 1 no"},
		},
	} {
		t.Run(name, func(t *testing.T) { run(t, &sotw{}, steps) })
	}
}

func TestUnacknowledgedResponsesDoNotPileUp(t *testing.T) {
	c, _ := newConn(&delta{})
	if err := c.handle(&request{typeURL: typeCluster}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 * maxUnanswered {
		c.prepare(update(typeCluster, fmt.Sprint(i), false, nil, "a"))
	}
	if n := len(c.watches[typeCluster].unanswered); n > maxUnanswered {
		t.Errorf("%d nonces are remembered", n)
	}
}

// What is remembered of a client's wishes is no more than counts against its limit.
func TestNamesAskedAgainAreCounted(t *testing.T) {
	d, w := &delta{}, newWatch(typeAddress)
	d.want(w, &request{typeURL: typeAddress, add: []string{"held"}, initial: map[string]string{"held": "1"}})
	for i := range 100 {
		at := fmt.Sprint(i)
		d.want(w, &request{typeURL: typeAddress, add: []string{at}, remove: []string{at}})
		d.want(w, &request{typeURL: typeAddress, add: []string{at}})
		d.want(w, &request{typeURL: typeAddress, remove: []string{at}})
	}
	d.want(w, &request{typeURL: typeAddress, add: []string{"wanted"}})
	if len(w.again) != 1 || len(w.names) != 2 {
		t.Errorf("asked again: %v; wanted: %v", w.again, w.names)
	}
}

func TestLimits(t *testing.T) {
	many := make([]string, 11)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	versions := map[string]string{}
	for _, n := range many {
		versions[n] = ""
	}
	cfg := ServerConfig{MaxNames: 10, MaxName: 100, MaxTypes: 2}
	for name, c := range map[string]struct {
		reqs []*request
		code codes.Code
	}{
		"names":             {[]*request{{typeURL: "t", add: many}}, codes.ResourceExhausted},
		"versions":          {[]*request{{typeURL: "t", initial: versions}}, codes.ResourceExhausted},
		"names of two":      {[]*request{{typeURL: "t", add: many[:6]}, {typeURL: "u", add: many[:6]}}, codes.ResourceExhausted},
		"unsubscribed":      {[]*request{{typeURL: "t", remove: many}}, codes.ResourceExhausted},
		"types":             {[]*request{{typeURL: "t"}, {typeURL: "u"}, {typeURL: "v"}}, codes.ResourceExhausted},
		"a long name":       {[]*request{{typeURL: "t", add: []string{strings.Repeat("x", 101)}}}, codes.InvalidArgument},
		"no type":           {[]*request{{}}, codes.InvalidArgument},
		"a type's long URL": {[]*request{{typeURL: strings.Repeat("x", 101)}}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			conn, _ := newConn(&delta{})
			conn.srv = NewServer(nil, cfg)
			var err error
			for _, r := range c.reqs {
				if err == nil {
					err = conn.handle(r)
				}
			}
			if status.Code(err) != c.code {
				t.Errorf("got %v, want %v", err, c.code)
			}
		})
	}
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// refusedWith sends r as the first request and returns how the stream ended.
func refusedWith(t *testing.T, addr string, r *discoveryv3.DeltaDiscoveryRequest) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	g, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(t, addr)).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	if r != nil {
		if err := g.Send(r); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	_, err = g.Recv()
	return err
}

func TestAdmission(t *testing.T) {
	node := func(id, ns, sa string) *corev3.Node {
		fields := map[string]*structpb.Value{}
		if ns != "" {
			fields["NAMESPACE"] = structpb.NewStringValue(ns)
		}
		if sa != "" {
			fields["SERVICE_ACCOUNT"] = structpb.NewStringValue(sa)
		}
		return &corev3.Node{Id: id, Metadata: &structpb.Struct{Fields: fields}}
	}
	with := func(n *corev3.Node, key string, v *structpb.Value) *corev3.Node {
		n.Metadata.Fields[key] = v
		return n
	}
	const id = "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local"
	const spiffe = "spiffe://cluster.local/ns/shop/sa/web"
	for name, c := range map[string]struct {
		identity string
		auth     error
		open     error
		node     *corev3.Node
		code     codes.Code
	}{
		"anonymous":                        {node: node("anything", "", ""), code: codes.OK},
		"its own":                          {identity: spiffe, node: node(id, "shop", "web"), code: codes.OK},
		"no service account":               {identity: spiffe, node: node(id, "shop", ""), code: codes.OK},
		"namespace from the id":            {identity: spiffe, node: node(id, "", "web"), code: codes.OK},
		"another namespace":                {identity: spiffe, node: node(id, "bank", "web"), code: codes.PermissionDenied},
		"another service account":          {identity: spiffe, node: node(id, "shop", "admin"), code: codes.PermissionDenied},
		"no namespace at all":              {identity: spiffe, node: node("x", "", "web"), code: codes.PermissionDenied},
		"a number for a namespace":         {identity: spiffe, node: with(node(id, "", "web"), "NAMESPACE", structpb.NewNumberValue(7)), code: codes.PermissionDenied},
		"a list for a service account":     {identity: spiffe, node: with(node(id, "shop", ""), "SERVICE_ACCOUNT", structpb.NewListValue(nil)), code: codes.PermissionDenied},
		"an identity of another kind":      {identity: "spiffe://x/other", node: node(id, "shop", "web"), code: codes.PermissionDenied},
		"not authenticated":                {auth: errors.New("no certificate"), node: node(id, "shop", "web"), code: codes.Unauthenticated},
		"not authenticated, with a status": {auth: status.Error(codes.ResourceExhausted, "slow"), node: node(id, "shop", "web"), code: codes.ResourceExhausted},
		"no node":                          {code: codes.InvalidArgument},
		"a node without id":                {node: node("", "shop", "web"), code: codes.InvalidArgument},
		"not ready":                        {open: errors.New("caches are cold"), node: node(id, "shop", "web"), code: codes.Unavailable},
		"a hub's own status":               {open: status.Error(codes.InvalidArgument, "ip"), node: node(id, "shop", "web"), code: codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			hub := newShelf()
			hub.fail = c.open
			addr, _ := listen(t, NewServer(hub, ServerConfig{
				Authenticate: func(context.Context) (string, error) { return c.identity, c.auth },
			}), "127.0.0.1:0")
			err := refusedWith(t, addr, &discoveryv3.DeltaDiscoveryRequest{Node: c.node, TypeUrl: typeCluster})
			if status.Code(err) != c.code {
				t.Errorf("got %v, want %v", err, c.code)
			}
		})
	}
}

func TestStreamLimits(t *testing.T) {
	hub := newShelf()
	node := &corev3.Node{Id: "n"}
	first := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeCluster}

	slow, _ := listen(t, NewServer(hub, ServerConfig{FirstRequest: time.Millisecond}), "127.0.0.1:0")
	if err := refusedWith(t, slow, nil); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a silent client: %v", err)
	}
	silent, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(t, slow)).DeltaAggregatedResources(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	silent.CloseSend()
	if _, err := silent.Recv(); err == nil {
		t.Error("a client that leaves without a word was sent something")
	}
	few, _ := listen(t, NewServer(hub, ServerConfig{StreamsPerSecond: 1e-9}), "127.0.0.1:0")
	if err := refusedWith(t, few, first); err != nil {
		t.Errorf("the first stream: %v", err)
	}
	if err := refusedWith(t, few, first); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the second stream: %v", err)
	}
	small, _ := listen(t, NewServer(hub, ServerConfig{MaxMessage: 1000}), "127.0.0.1:0")
	big := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeCluster, ResourceNamesSubscribe: []string{strings.Repeat("x", 2000)}}
	if err := refusedWith(t, small, big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a large request: %v", err)
	}
	srv := NewServer(hub, ServerConfig{MaxStreams: 1})
	one, _ := listen(t, srv, "127.0.0.1:0")
	g, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(t, one)).DeltaAggregatedResources(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	g.Send(first)
	if _, err := g.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := refusedWith(t, one, first); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one stream too many: %v", err)
	}
	srv.Close()
	if _, err := g.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("closing: %v", err)
	}
	eventually(t, "the stream is counted out", func() bool { return srv.Streams() == 0 })
	if err := refusedWith(t, one, first); status.Code(err) != codes.Unavailable {
		t.Errorf("after closing: %v", err)
	}
	eventually(t, "every feed is closed", func() bool {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		return len(hub.feeds) == 0
	})
}

func TestSecretStreams(t *testing.T) {
	hub := newShelf()
	hub.put(typeSecret, "default", "cert")
	addr, _ := listen(t, NewServer(hub, ServerConfig{}), "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	g, err := secretv3.NewSecretDiscoveryServiceClient(dial(t, addr)).StreamSecrets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	g.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}, ResourceNames: []string{"default"}})
	m, err := g.Recv()
	if err != nil || m.TypeUrl != typeSecret || sent(m) != "nonce1 [default]" {
		t.Fatalf("%v, %v", m, err)
	}
	if _, err := secretv3.NewSecretDiscoveryServiceClient(dial(t, addr)).FetchSecrets(ctx, &discoveryv3.DiscoveryRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("FetchSecrets: %v", err)
	}
}

// FuzzRequests lets random requests and updates meet on one stream, in both
// dialects: nothing panics, names stay bounded, and "*" never reaches a feed.
func FuzzRequests(f *testing.F) {
	f.Add([]byte("\x01a*\x02b\x03\x04"), true)
	f.Fuzz(func(t *testing.T, in []byte, inc bool) {
		var d dialect = &sotw{}
		if inc {
			d = &delta{}
		}
		c, tp := newConn(d)
		c.srv.cfg.MaxNames = 20
		next := func() byte {
			if len(in) == 0 {
				return 0
			}
			b := in[0]
			in = in[1:]
			return b
		}
		name := func() string { return []string{"*", "a", "b", "c", "", "d"}[next()%6] }
		list := func() (l []string) {
			for range next() % 4 {
				l = append(l, name())
			}
			return l
		}
		types := []string{typeCluster, typeEndpoints, typeAddress, ""}
		for len(in) > 0 {
			typ := types[next()%4]
			if next()%2 == 0 {
				r := &request{typeURL: typ, nonce: name(), nack: next()%2 == 0, names: list(), add: list(), remove: list(), initial: map[string]string{}}
				for _, n := range list() {
					r.initial[n] = "1"
				}
				_ = c.handle(r)
				continue
			}
			sent(c.prepare(update(typ, name(), next()%2 == 0, list(), list()...)))
		}
		for _, line := range tp.log {
			if strings.Contains(line, "*") && !strings.Contains(line, "ack") {
				t.Errorf("a feed was told %q", line)
			}
		}
		if c.size() > 100 {
			t.Errorf("%d names are held", c.size())
		}
	})
}

func TestBucket(t *testing.T) {
	b := newBucket(2)
	got := []bool{b.take(), b.take(), b.take()}
	if !slices.Equal(got, []bool{true, true, false}) {
		t.Errorf("%v", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	slow := newBucket(1e-6)
	if err := slow.wait(ctx); err != nil {
		t.Errorf("the first is free: %v", err)
	}
	if err := slow.wait(ctx); err == nil {
		t.Error("the second did not wait")
	}
}
