// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"testing"

	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/control/source/sourcetest"
)

func TestMemoryIsASource(t *testing.T) {
	sourcetest.Run(t, func(*testing.T) sourcetest.Rig {
		m := source.NewMemory("memory")
		return sourcetest.Rig{Source: m, Put: func(e source.Entry) { m.Put(e) }, Delete: func(k source.Key) { m.Delete(k) }}
	})
}
