// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// shelf is a Hub whose resources a test puts in and takes out.
type shelf struct {
	mu    sync.Mutex
	items map[string]map[string]Resource // type, name
	feeds map[*shelfFeed]bool
	log   []string // what clients told, in order
	opens int
	fail  error
}

func newShelf() *shelf {
	return &shelf{items: map[string]map[string]Resource{}, feeds: map[*shelfFeed]bool{}}
}

// body is a message of the type whose field 1 is name and field 2 is text.
func body(typeURL, name, text string) *anypb.Any {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), text)
	return &anypb.Any{TypeUrl: typeURL, Value: b}
}

// text is field 2, where there is one.
func text(r Resource) string {
	b := r.Body.GetValue()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		if num == 2 && typ == protowire.BytesType {
			v, _ := protowire.ConsumeString(b[n:])
			return v
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return ""
		}
		b = b[n+m:]
	}
	return ""
}

func (s *shelf) put(typeURL, name, text string, aliases ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.items[typeURL] == nil {
		s.items[typeURL] = map[string]Resource{}
	}
	r := Resource{Name: name, Version: text, Aliases: aliases, Body: body(typeURL, name, text)}
	s.items[typeURL][name] = r
	for f := range s.feeds {
		if f.sees(typeURL, r) {
			f.push(&Update{TypeURL: typeURL, Resources: []Resource{r}})
		}
	}
}

func (s *shelf) take(typeURL, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.items[typeURL][name]
	delete(s.items[typeURL], name)
	for f := range s.feeds {
		if f.sees(typeURL, r) {
			f.push(&Update{TypeURL: typeURL, Removed: []string{name}})
		}
	}
}

func (s *shelf) said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *shelf) Open(_ context.Context, c *Client) (Feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	s.opens++
	f := &shelfFeed{s: s, c: c, want: map[string]map[string]bool{}, all: map[string]bool{}, asked: map[string]bool{}, ready: make(chan struct{}, 1)}
	s.feeds[f] = true
	return f, nil
}

type shelfFeed struct {
	s     *shelf
	c     *Client
	want  map[string]map[string]bool
	all   map[string]bool
	asked map[string]bool
	queue []*Update
	n     int
	ready chan struct{}
}

func (f *shelfFeed) sees(typeURL string, r Resource) bool {
	return f.all[typeURL] || f.want[typeURL][r.Name] || slices.ContainsFunc(r.Aliases, func(a string) bool { return f.want[typeURL][a] })
}

func (f *shelfFeed) push(u *Update) {
	f.n++
	u.Nonce, u.Version = "nonce"+strconv.Itoa(f.n), "v"+strconv.Itoa(f.n)
	f.queue = append(f.queue, u)
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

func (f *shelfFeed) Subscribe(typeURL string, add, remove []string, wildcard bool) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.log = append(f.s.log, fmt.Sprintf("subscribe %s +%v -%v %v", short(typeURL), add, remove, wildcard))
	if f.want[typeURL] == nil {
		f.want[typeURL] = map[string]bool{}
	}
	u := &Update{TypeURL: typeURL, Full: !f.asked[typeURL]}
	more := wildcard && !f.all[typeURL]
	f.asked[typeURL] = true
	f.all[typeURL] = wildcard
	for _, n := range remove {
		delete(f.want[typeURL], n)
	}
	for _, n := range add {
		f.want[typeURL][n] = true
		found := false
		for _, r := range f.s.items[typeURL] {
			if r.Name == n || slices.Contains(r.Aliases, n) {
				u.Resources, found = append(u.Resources, r), true
			}
		}
		if !found {
			u.Removed = append(u.Removed, n)
		}
	}
	if more {
		u.Resources = nil
		for _, n := range sortedKeys(f.s.items[typeURL]) {
			u.Resources = append(u.Resources, f.s.items[typeURL][n])
		}
	}
	if u.Full || len(u.Resources)+len(u.Removed) > 0 {
		f.push(u)
	}
}

func (f *shelfFeed) Next(ctx context.Context) (*Update, error) {
	for {
		f.s.mu.Lock()
		if len(f.queue) > 0 {
			u := f.queue[0]
			f.queue = f.queue[1:]
			f.s.mu.Unlock()
			return u, nil
		}
		f.s.mu.Unlock()
		select {
		case <-f.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *shelfFeed) Ack(typeURL, nonce string) { f.note("ack %s %s", short(typeURL), nonce) }

func (f *shelfFeed) Nack(typeURL, nonce, detail string) {
	f.note("nack %s %s %s", short(typeURL), nonce, detail)
}

func (f *shelfFeed) Close() {
	f.note("close")
	f.s.mu.Lock()
	delete(f.s.feeds, f)
	f.s.mu.Unlock()
}

func (f *shelfFeed) note(format string, args ...any) {
	f.s.mu.Lock()
	f.s.log = append(f.s.log, fmt.Sprintf(format, args...))
	f.s.mu.Unlock()
}

// short is the last word of a type.
func short(typeURL string) string {
	for i := len(typeURL) - 1; i >= 0; i-- {
		if typeURL[i] == '.' || typeURL[i] == '/' {
			return typeURL[i+1:]
		}
	}
	return typeURL
}

// listen serves srv at addr until stop is called.
func listen(t *testing.T, srv *Server, addr string) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(srv.Options()...)
	srv.Register(g)
	srv.RegisterSecrets(g)
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(l) }()
	stop = sync.OnceFunc(func() { srv.Close(); g.Stop(); <-done })
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// desk is a Handler that keeps what it gets.
type desk struct {
	mu     sync.Mutex
	has    map[string]string // "type/name": text
	log    []string
	reject map[string]string // name: why
	on     func(Update)
	ups    []bool
}

func newDesk() *desk { return &desk{has: map[string]string{}, reject: map[string]string{}} }

func (d *desk) Apply(u Update) (bad []Rejection) {
	d.mu.Lock()
	for _, r := range u.Resources {
		if why := d.reject[r.Name]; why != "" {
			bad = append(bad, Rejection{r.Name, fmt.Errorf("%s", why)})
			d.log = append(d.log, "refuse "+short(u.TypeURL)+"/"+r.Name)
			continue
		}
		d.has[short(u.TypeURL)+"/"+r.Name] = text(r)
		d.log = append(d.log, "set "+short(u.TypeURL)+"/"+r.Name+"="+text(r))
	}
	for _, n := range u.Removed {
		delete(d.has, short(u.TypeURL)+"/"+n)
		d.log = append(d.log, "del "+short(u.TypeURL)+"/"+n)
	}
	if u.Full {
		d.log = append(d.log, "full "+short(u.TypeURL))
	}
	on := d.on
	d.mu.Unlock()
	if on != nil {
		on(u)
	}
	return bad
}

func (d *desk) connected(up bool, _ error) {
	d.mu.Lock()
	d.ups = append(d.ups, up)
	d.mu.Unlock()
}

func (d *desk) look() (map[string]string, []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := map[string]string{}
	for k, v := range d.has {
		m[k] = v
	}
	return m, slices.Clone(d.log)
}

// start runs a Subscriber for d until the test ends.
func start(t *testing.T, addr string, sotw bool, d *desk) *Subscriber {
	t.Helper()
	s := NewClient(ClientConfig{
		Target: addr, SotW: sotw, Node: &corev3.Node{Id: "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local"},
		Options:    []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Connected: d.connected,
	}, d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
