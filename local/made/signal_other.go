// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package made

import "os"

func (t Thing) signal(bool) {
	if p, err := os.FindProcess(t.PID); err == nil {
		_ = p.Kill()
	}
}
