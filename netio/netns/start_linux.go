// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"
)

// Start starts cmd inside n. overlay maps paths to files that the process, and it alone, sees in their
// place (a resolv.conf, say); paths that do not exist are passed over. It needs root.
// Standard streams must be files.
func (n Namespace) Start(cmd *exec.Cmd, overlay map[string]string) error {
	if len(overlay) == 0 {
		return n.Do(cmd.Start)
	}
	target, err := n.Open()
	if err != nil {
		return err
	}
	defer target.Close()
	return onThread(func() (bool, error) { return false, startOverlaid(target, cmd, overlay) })
}

func startOverlaid(target *os.File, cmd *exec.Cmd, overlay map[string]string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("start %s: own view of the file system needs root: %w", cmd.Path, err)
	}
	// What is mounted here must not show outside; what is mounted outside may show here.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("start %s: own view of the file system: %w", cmd.Path, err)
	}
	for _, path := range slices.Sorted(maps.Keys(overlay)) {
		err := unix.Mount(overlay[path], path, "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("start %s: show %s as %s: %w", cmd.Path, overlay[path], path, err)
		}
	}
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("start %s: enter %s: %w", cmd.Path, target.Name(), err)
	}
	return cmd.Start()
}
