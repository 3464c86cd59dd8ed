// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"testing"
	"time"
)

func TestACalmAfterABurstIsNoticedOnce(t *testing.T) {
	var p pulse
	for i, beat := range []struct {
		used time.Duration
		want bool
	}{
		{0, false}, {calm - 1, false}, // it was never anything else
		{calm, false}, {10 * calm, false}, {calm, false}, // not yet
		{calm - 1, true}, {0, false}, {0, false}, {2 * calm, false}, {0, true},
	} {
		if got := p.calmed(beat.used); got != beat.want {
			t.Errorf("beat %d: %v", i, got)
		}
	}
}

func TestTimeSpentIsCounted(t *testing.T) {
	before := spent()
	for end := time.Now().Add(5 * time.Second); spent() == before; {
		if time.Now().After(end) {
			t.Fatal("nothing is counted")
		}
	}
}
