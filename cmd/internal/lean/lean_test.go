// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"testing"
	"time"
)

func TestTimeSpentIsCounted(t *testing.T) {
	before := spent()
	for end := time.Now().Add(5 * time.Second); spent() == before; {
		if time.Now().After(end) {
			t.Fatal("nothing is counted")
		}
	}
}
