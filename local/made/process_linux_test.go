// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package made

import (
	"fmt"
	"testing"
)

func TestBornIn(t *testing.T) {
	for _, c := range []struct {
		state   string
		threads int
		want    string
	}{
		{"S", 7, "12345"},
		{"Z", 7, "12345"}, // the others still end
		{"Z", 1, ""},
		{"Z", 0, ""},
		{"X", 1, ""},
	} {
		stat := fmt.Sprintf("42 (a) name)) %s 1 42 42 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 %d 0 12345 0 0", c.state, c.threads)
		if got := bornIn([]byte(stat)); got != c.want {
			t.Errorf("%s with %d threads: %q, want %q", c.state, c.threads, got, c.want)
		}
	}
	if got := bornIn([]byte("42 (short) S 1")); got != "" {
		t.Errorf("got %q", got)
	}
}
