// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package keep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meltemi/meltemi/xds"
)

const (
	things  = "type.googleapis.com/Thing"
	names   = "type.googleapis.com/Name"
	secrets = "type.googleapis.com/Secret"
)

// desk is a Handler that keeps what it gets.
type desk struct {
	has    map[string]string
	reject string
}

func (d *desk) Apply(u xds.Update) (bad []xds.Rejection) {
	for _, name := range u.Removed {
		delete(d.has, name)
	}
	for _, r := range u.Resources {
		if r.Name == d.reject {
			bad = append(bad, xds.Rejection{Name: r.Name, Err: errors.New("no")})
			continue
		}
		d.has[r.Name] = string(r.Body.Value)
	}
	return bad
}

func (d *desk) String() string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(d.has)) {
		out = append(out, n+"="+d.has[n])
	}
	return strings.Join(out, " ")
}

func thing(name, text string, aliases ...string) xds.Resource {
	return xds.Resource{Name: name, Version: text, Aliases: aliases, Body: &anypb.Any{TypeUrl: things, Value: []byte(text)}}
}

// nobody asks nobody.
type nobody struct{}

func (nobody) Subscribe(string, ...string)   {}
func (nobody) Unsubscribe(string, ...string) {}

type rig struct {
	*Keeper
	*desk
	asks Subscriptions
}

func newRig(t *testing.T, dir string, tune func(*Config)) *rig {
	t.Helper()
	cfg := Defaults(dir, "me")
	cfg.Types, cfg.Notes = []string{names, things}, func() []string { return []string{"10.0.0.1:80"} }
	if tune != nil {
		tune(&cfg)
	}
	d := &desk{has: map[string]string{}}
	k, err := New(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{k, d, k.Follow(nobody{})}
}

func (r *rig) Apply(typeURL string, full bool, removed []string, list ...xds.Resource) {
	r.Keeper.Apply(xds.Update{TypeURL: typeURL, Full: full, Resources: list, Removed: removed})
}

func TestKeepAndRestore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	a := newRig(t, dir, nil)
	a.desk.reject = "bad"
	a.asks.Subscribe(things)
	a.asks.Subscribe(names, "net/1", "net/2", "net/3")
	a.Apply(things, true, nil, thing("a", "1"), thing("b", "1"), thing("bad", "1"))
	a.Apply(things, false, []string{"b"}, thing("c", "1"))
	a.Apply(secrets, true, nil, thing("key", "secret"))
	a.Apply(names, true, nil, thing("one", "1", "net/1", "net/2"), thing("three", "1", "net/3"))
	a.asks.Unsubscribe(names, "net/1", "net/3")
	a.asks.Unsubscribe(things, "c") // everything is wanted: the server says what goes
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a.save()

	b := newRig(t, dir, nil)
	kept, err := b.Load()
	if err != nil || !slices.Equal(kept.Notes, []string{"10.0.0.1:80"}) {
		t.Fatalf("%+v, %v", kept, err)
	}
	if n := b.Restore(kept); n != 3 || b.desk.String() != "a=1 c=1 one=1" {
		t.Errorf("%d resources: %s", n, b.desk)
	}
	for _, u := range kept.Updates {
		for _, r := range u.Resources {
			if r.Body.GetTypeUrl() != u.TypeURL || r.Version == "" || r.Name == "one" && len(r.Aliases) != 2 {
				t.Errorf("%+v", r)
			}
		}
	}
	// The control plane is back: what it does not have goes, what was asked for by
	// name is answered by name.
	b.asks.Subscribe(things, "c")
	b.Apply(things, true, nil, thing("d", "1"))
	if got := b.desk.String(); got != "c=1 d=1 one=1" {
		t.Errorf("%s", got)
	}
	b.Apply(things, false, []string{"c"})
	if got := b.desk.String(); got != "d=1 one=1" {
		t.Errorf("%s", got)
	}
	if b.Restore(kept) != 1 || b.desk.String() != "d=1 one=1" {
		t.Error("what the control plane has answered is overwritten by what was kept: " + b.desk.String())
	}
}

func TestFileIsWrittenAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		k := newRig(t, dir, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = k.Run(ctx) }()
		there := func() bool { _, err := os.Stat(filepath.Join(dir, fileName)); return err == nil }
		for i := range 20 {
			k.Apply(things, false, nil, thing(fmt.Sprint(i), "1"))
			time.Sleep(time.Second)
			synctest.Wait()
			if there() {
				t.Fatalf("after %d changes", i)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !there() {
			t.Fatal("it is not written")
		}
		if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if err := os.Remove(filepath.Join(dir, fileName)); err != nil {
			t.Fatal(err)
		}
		k.Touch() // nothing has changed
		time.Sleep(time.Minute)
		synctest.Wait()
		if there() {
			t.Error("it is written again")
		}
		k.Apply(things, false, nil, thing("last", "1"))
		cancel()
		<-done
		if !there() {
			t.Error("the last change is lost")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".keep-*")); len(left) > 0 {
			t.Errorf("left over: %q", left)
		}
	})
}

func TestChangesThatKeepComingAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		k := newRig(t, dir, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = k.Run(ctx) }()
		for i := range 40 {
			k.Apply(things, false, nil, thing(fmt.Sprint(i), "1"))
			time.Sleep(time.Second)
		}
		if _, err := os.Stat(filepath.Join(dir, fileName)); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
	})
}

func TestUselessFiles(t *testing.T) {
	good, _ := (&Kept{Owner: "me", At: time.Now(), Updates: []xds.Update{{TypeURL: things, Resources: []xds.Resource{thing("a", "1")}}}}).encode()
	other, _ := (&Kept{Owner: "somebody", At: time.Now()}).encode()
	old, _ := (&Kept{Owner: "me", At: time.Now().Add(-48 * time.Hour)}).encode()
	for _, c := range []struct {
		what string
		file []byte
		err  string
	}{
		{"good", good, ""},
		{"empty", nil, "no file of this version"},
		{"another version", append([]byte("MLTKEEP2"), good[8:]...), "no file of this version"},
		{"cut off", good[:len(good)-5], "damaged"},
		{"cut short", good[:len(magic)+3], "damaged"},
		{"turned over", append(bytes.Clone(good[:20]), append([]byte{good[20] ^ 1}, good[21:]...)...), "damaged"},
		{"too large", append(bytes.Clone(good), make([]byte, 2000)...), "too large"},
		{"somebody else's", other, "belongs to"},
		{"old", old, "48h"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		k := newRig(t, dir, func(cfg *Config) { cfg.MaxBytes = 1000 })
		kept, err := k.Load()
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", c.what, err)
		}
		if n := k.Restore(kept); (n == 1) != (c.err == "") {
			t.Errorf("%s: %d resources", c.what, n)
		}
	}
	if kept, err := newRig(t, t.TempDir(), nil).Load(); err != nil || len(kept.Updates) != 0 {
		t.Errorf("no file: %+v, %v", kept, err)
	}
}

func TestTooMuchIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	k := newRig(t, dir, func(cfg *Config) { cfg.MaxBytes = 500 })
	k.Apply(things, true, nil, thing("a", strings.Repeat("x", 600)))
	k.save()
	if _, err := os.Stat(filepath.Join(dir, fileName)); err == nil {
		t.Error("it was written")
	}
}

func FuzzRead(f *testing.F) {
	good, _ := (&Kept{Owner: "me", At: time.Unix(1, 0), Notes: []string{"n"}, Updates: []xds.Update{{TypeURL: things, Resources: []xds.Resource{thing("a", "1", "b")}}}}).encode()
	f.Add(good[len(magic) : len(good)-digestSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		kept, err := decode(b)
		if err != nil {
			return
		}
		file, _ := kept.encode()
		again, err := read(bytes.NewReader(file), 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if second, _ := again.encode(); !bytes.Equal(file, second) {
			t.Error("what is written and read is something else")
		}
	})
}
