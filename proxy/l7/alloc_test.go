// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package l7

import (
	"io"
	"testing"
)

// An exchange of HTTP/1.1 with routing, metadata exchange, metrics and an access
// log allocates nothing once pools are warm; what is counted here includes the
// client and the backend of the test.
func TestExchangesDoNotAllocate(t *testing.T) {
	for _, logs := range []bool{false, true} {
		r := benchRig(t, logs)
		c := r.dial()
		buf := make([]byte, 8<<10)
		one := func() {
			if _, err := c.Write(benchRequest); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAtLeast(c, buf, 1024); err != nil {
				t.Fatal(err)
			}
		}
		for range 200 {
			one()
		}
		if n := testing.AllocsPerRun(500, one); n > 1 {
			t.Errorf("logs %v: %v allocations per exchange, want at most 1", logs, n)
		}
	}
}
