// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxDetail is the longest rejection that is sent, in bytes.
const maxDetail = 16 << 10

// An asker is one of the protocol's two variants, bound to a gRPC stream. Its
// builders are called with the Subscriber's lock held; they return nil for nothing to say.
type asker interface {
	recv() (*Update, error)
	ask(t *topic, node *corev3.Node) any
	// answer acknowledges u, or rejects it if detail is not empty.
	answer(t *topic, u *Update, detail string) any
	send(request any) error
}

// A session is one stream of a Subscriber.
type session struct {
	*Subscriber
	asker asker
	// Guarded by Subscriber.mu.
	answers []any
	greeted bool // the node was sent
}

// stream runs one stream to its end and reports whether it delivered anything.
func (s *Subscriber) stream(ctx context.Context, conn *grpc.ClientConn) (good bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	x := &session{Subscriber: s}
	if s.cfg.SotW {
		x.asker, err = openSotW(ctx, conn, s.cfg.Name)
	} else {
		x.asker, err = openDelta(ctx, conn)
	}
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	s.live = x
	for _, t := range s.order {
		t.reopen()
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.live = nil
		s.mu.Unlock()
	}()

	sent := make(chan struct{})
	go func() {
		defer close(sent)
		cancel(x.transmit(ctx))
	}()
	defer func() { cancel(nil); <-sent }()
	for {
		u, err := x.asker.recv()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				err = cause
			}
			return good, err
		}
		if !good {
			good = true
			s.setUp(true, nil)
		}
		x.apply(u)
	}
}

// transmit sends what there is to say, until the stream ends.
func (x *session) transmit(ctx context.Context) error {
	for {
		for _, m := range x.collect() {
			if err := x.asker.send(m); err != nil {
				return nil // Recv knows why
			}
		}
		select {
		case <-x.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// collect takes what is to be said: answers first, then subscriptions in the
// order of types. Changes made while a response is applied wait until it is answered, so
// that a hundred new clusters ask for their endpoints in one message.
func (x *session) collect() []any {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := x.answers
	x.answers = nil
	if x.applying {
		return out
	}
	for _, t := range x.order {
		var node *corev3.Node
		if !x.greeted {
			node = x.cfg.Node
		}
		if m := x.asker.ask(t, node); m != nil {
			x.greeted = true
			out = append(out, m)
		}
	}
	return out
}

// apply hands a response to the Handler and queues the answer.
func (x *session) apply(u *Update) {
	x.mu.Lock()
	t := x.topics[u.TypeURL]
	if t == nil {
		x.mu.Unlock()
		return // never asked for; there is no subscription whose nonce it could be
	}
	t.newest = u.Nonce
	news, same, bad := x.sift(t, u)
	x.applying = true
	x.mu.Unlock()

	if len(news.Resources) > 0 || len(news.Removed) > 0 || news.Full {
		bad = append(bad, x.handler.Apply(news)...)
	}

	x.mu.Lock()
	refused := make(map[string]bool, len(bad))
	for _, r := range bad {
		refused[r.Name] = true
	}
	from := &Update{TypeURL: u.TypeURL, Version: u.Version, Nonce: u.Nonce}
	for _, n := range news.Removed {
		if !refused[n] {
			t.forget(n)
		}
	}
	for _, r := range news.Resources {
		if _, dropped := t.drop[r.Name]; !dropped && !refused[r.Name] {
			t.accept(r, from)
		}
	}
	t.answered = true
	for _, r := range bad {
		if r.Name != "" {
			t.refuse(r.Name, from, r.Err)
		}
	}
	for _, r := range same {
		if _, dropped := t.drop[r.Name]; !dropped {
			t.accept(r, from) // its version may differ
		}
	}
	for _, o := range x.order { // Review may have spoken of any type meanwhile
		for _, again := range o.review() {
			if again != from {
				x.again(o, again)
			}
		}
	}
	for _, r := range t.wrong(from) {
		if !refused[r.Name] {
			bad = append(bad, r)
		}
	}
	reason := detail(bad)
	t.waiting = nil
	if wait := t.patience(u.Version, reason); wait > 0 {
		t.waiting = from
		time.AfterFunc(wait, func() { x.refuseLate(t, from) })
	} else {
		x.answer(t, from, reason)
	}
	x.applying = false
	x.mu.Unlock()
	x.poke()
}

// refuseLate says what had to wait, unless another response came meanwhile.
func (x *session) refuseLate(t *topic, u *Update) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if t.waiting == u {
		x.again(t, u)
	}
}

// again answers u by what is known of its resources now. Where that is not the first answer, it replaces the one before:
// a control plane that does not know this takes no notice.
func (x *session) again(t *topic, u *Update) {
	if t.waiting == u {
		t.waiting = nil
	}
	x.answer(t, u, detail(t.wrong(u)))
	x.poke()
}

func (x *session) answer(t *topic, u *Update, reason string) {
	if m := x.asker.answer(t, u, reason); m != nil {
		x.answers = append(x.answers, m)
	}
}

// sift keeps of u what is new, and what can be applied at all.
func (x *session) sift(t *topic, u *Update) (news Update, same []Resource, bad []Rejection) {
	news = Update{TypeURL: u.TypeURL, Version: u.Version, Nonce: u.Nonce, Full: !t.answered}
	seen := make(map[string]struct{}, len(u.Resources))
	for _, r := range u.Resources {
		if err := check(r, u.TypeURL, seen); err != nil {
			bad = append(bad, Rejection{Name: r.Name, Err: err})
			continue
		}
		seen[r.Name] = struct{}{}
		if namedOnly(t.typeURL) && !t.wants(r.Name, held{aliases: r.Aliases}) {
			continue // was under way when it was unsubscribed
		}
		if t.same(r) {
			same = append(same, r)
			continue
		}
		news.Resources = append(news.Resources, r)
	}
	for _, n := range u.Removed {
		_, asked := t.names[n]
		_, held := t.known[n]
		_, refused := t.bad[n]
		if asked || held || refused {
			news.Removed = append(news.Removed, n)
		}
	}
	if !t.heard && t.wildcard && !x.cfg.SotW {
		// A control plane is not told of what was refused, and so does not say that it is gone since.
		for _, n := range sortedKeys(t.bad) {
			_, there := seen[n]
			_, held := t.known[n]
			if !there && !held && !slices.ContainsFunc(bad, func(r Rejection) bool { return r.Name == n }) {
				news.Removed = append(news.Removed, n)
			}
		}
	}
	t.heard = true
	if x.cfg.SotW && fullState(t.typeURL, t.wildcard) {
		news.Removed = append(news.Removed, t.missing(seen, bad)...)
	}
	return news, same, bad
}

func check(r Resource, typeURL string, seen map[string]struct{}) error {
	if r.Name == "" {
		return errors.New("the resource has no name")
	}
	if _, ok := seen[r.Name]; ok {
		return errors.New("the response holds the name twice; the first one counts")
	}
	if r.Body == nil {
		return errors.New("the resource has no body")
	}
	if r.Body.GetTypeUrl() != typeURL {
		return fmt.Errorf("the body is a %q in a response of %q", r.Body.GetTypeUrl(), typeURL)
	}
	return nil
}

// missing is what a complete response lacks: known resources that are gone, and
// names that were asked for in vain, each reported once.
func (t *topic) missing(seen map[string]struct{}, bad []Rejection) []string {
	for _, r := range bad { // present, if only in a form we refuse
		seen[r.Name] = struct{}{}
	}
	var out []string
	for _, n := range sortedKeys(t.known) {
		if _, ok := seen[n]; !ok {
			out = append(out, n)
		}
	}
	for _, n := range sortedKeys(t.bad) {
		_, there := seen[n]
		if _, held := t.known[n]; !there && !held {
			out = append(out, n)
		}
	}
	for _, n := range sortedKeys(t.names) {
		_, there := seen[n]
		_, held := t.known[n]
		_, told := t.absent[n]
		if !there && !told {
			t.absent[n] = struct{}{}
			if !held {
				out = append(out, n)
			}
		}
		if there {
			delete(t.absent, n)
		}
	}
	return out
}

// detail is all rejections in one text.
func detail(bad []Rejection) string {
	var b strings.Builder
	for i, r := range bad {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %v", r.Name, r.Err)
		if b.Len() > maxDetail {
			return strings.ToValidUTF8(b.String()[:maxDetail], "") + "…"
		}
	}
	return b.String()
}

// refusal is a rejection as both dialects send it.
func refusal(detail string) *status.Status {
	return status.New(codes.InvalidArgument, strings.ToValidUTF8(detail, "\uFFFD"))
}
