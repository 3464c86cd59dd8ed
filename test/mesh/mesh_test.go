// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import "testing"

func TestTheSampleWorks(t *testing.T) {
	b := StartBookshop(Start(t))
	b.Ready()
}
