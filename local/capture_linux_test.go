// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	"github.com/meltemi/meltemi/local/made"
	"github.com/meltemi/meltemi/netio/netns"
)

func TestPlainHosts(t *testing.T) {
	for in, want := range map[string]string{
		"hosts: files dns\n": "hosts: files dns\n",
		"passwd: files\nhosts:  files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns\nnetworks: files\n": "passwd: files\nhosts: files dns\nnetworks: files\n",
		"": "",
	} {
		got, changed := plainHosts(in)
		if got != want || changed != (in != want) {
			t.Errorf("%q became %q, %v", in, got, changed)
		}
	}
}

func TestOverlaps(t *testing.T) {
	p := netip.MustParsePrefix("10.201.0.0/24")
	for r, want := range map[string]bool{"10.0.0.0/8": true, "10.201.0.128/25": true, "10.201.1.0/24": false, "fd00::/8": false} {
		if got := overlaps(p, []netip.Prefix{netip.MustParsePrefix(r)}); got != want {
			t.Errorf("%s: %v", r, got)
		}
	}
}

func TestPlacesMadeAtOnceAreDistinct(t *testing.T) {
	if err := canCapture(); err != nil {
		t.Skip("capture needs root on Linux: ", err)
	}
	const n = 6
	places, errs := make([]*captured, n), make([]error, n)
	journals := make([]*made.Journal, n)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		f := folder{t.TempDir()}
		j, err := made.Open(filepath.Join(f.dir, "made.json"))
		if err != nil {
			t.Fatal(err)
		}
		journals[i] = j
		wg.Go(func() {
			<-begin
			places[i], errs[i] = newCaptured(t.Context(), j, f, f.ports(), t.TempDir())
		})
	}
	close(begin)
	wg.Wait()
	subnets := map[string]bool{}
	for i := range n {
		if errs[i] != nil {
			t.Error(errs[i])
			continue
		}
		subnets[places[i].subnet.String()] = true
		defer func() {
			if left, err := (netns.Namespace{}).Links(places[i].link); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		}()
	}
	if len(subnets) != n {
		t.Errorf("%d places have the ranges %v", n, subnets)
	}
	for _, j := range journals {
		if err := j.Undo(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
