// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestGoRunIsRecognised(t *testing.T) {
	for exe, want := range map[string]bool{
		"/tmp/go-build4034900417/b001/exe/meltemi":                                                            true,
		"/root/.cache/go-build/84/84b71632ff49bd8d4bc0754b84b79fb5bf4c0c9a53ecbb4369bf367238081e46-d/meltemi": true,
		"/home/me/cache/84/84b71632ff49bd8d4bc0754b84b79fb5bf4c0c9a53ecbb4369bf367238081e46-d/meltemi":        true,
		"/srv/go-build/bin/meltemi":          false,
		"/home/me/go-build/meltemi":          false,
		"/usr/local/bin/meltemi":             false,
		"/home/me/go-builder/bin/meltemi":    false,
		"/home/me/src/meltemi-d/bin/meltemi": false,
	} {
		if underGoRun(exe) != want {
			t.Errorf("%s: %v", exe, !want)
		}
	}
}
