// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const smaps = `00400000-00e19000 r-xp 00000000 08:01 123 /bin/meltemi-proxy
Size:              10340 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00e19000-019d7000 r--p 00a19000 08:01 123 /bin/meltemi-proxy
Anonymous:             0 kB
019d7000-01a6a000 rw-p 015d7000 08:01 123 /bin/meltemi-proxy
Anonymous:             0 kB
01a6a000-01a6b000 r--p 015d7000 08:01 123 /bin/meltemi-proxy
Anonymous:             4 kB
01a6b000-03ab4000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 08:01 9 /lib/libc.so.6
Anonymous:             0 kB
`

// Only what the file can give back is dropped: nothing writable, nothing that was
// relocated, nothing of others.
func TestCleanMappings(t *testing.T) {
	want := []span{{0x400000, 0xe19000}, {0xe19000, 0x19d7000}}
	if got := clean(strings.NewReader(smaps), "/bin/meltemi-proxy"); !slices.Equal(got, want) {
		t.Errorf("clean = %x, want %x", got, want)
	}
}

func TestProgramRunsOnWithoutItsPages(t *testing.T) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("no smaps:", err)
	}
	if len(clean(strings.NewReader(string(b)), exe)) == 0 {
		t.Errorf("no mapping of %s is found in\n%s", exe, b)
	}
	dropCode()
}

func TestSettleWaitsForConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		begin, asked := time.Now(), time.Duration(0)
		Settle(ctx, func() error {
			if asked = time.Since(begin); asked < time.Hour {
				return errors.New("not yet")
			}
			return nil
		})
		if asked < time.Hour || asked > time.Hour+time.Second || time.Since(begin) != 2*time.Hour {
			t.Errorf("it asked until %v, and ended after %v", asked, time.Since(begin))
		}
	})
}

func TestSettleEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	Settle(ctx, func() error { return errors.New("never") })
	Settle(ctx, func() error { return nil })
}
