// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func permitted() error {
	var caps [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	has := func(c uint) bool { return caps[c/32].Effective&(1<<(c%32)) != 0 }
	switch admin, system := has(unix.CAP_NET_ADMIN), has(unix.CAP_SYS_ADMIN); {
	case os.Geteuid() != 0:
		return errors.New("not root")
	case !admin && !system:
		return errors.New("root without CAP_NET_ADMIN and CAP_SYS_ADMIN")
	case !admin:
		return errors.New("root without CAP_NET_ADMIN")
	case !system:
		return errors.New("root without CAP_SYS_ADMIN")
	}
	// What filters system calls may still forbid it. The thread ends with its namespace.
	return onThread(func() (bool, error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return true, fmt.Errorf("a new network namespace: %w", err)
		}
		return false, nil
	})
}

// do runs f on a goroutine locked to its thread. If the thread cannot be brought back it is never
// unlocked, so that the runtime destroys it instead of handing it to others.
func (n Namespace) do(f func() error) error {
	if n.path == "" {
		return f()
	}
	target, err := n.Open()
	if err != nil {
		return err
	}
	defer target.Close()
	return onThread(func() (bool, error) { return inside(target, f) })
}

// onThread runs f on a thread of its own, which is used again only if f says that it is as it was. It is never
// the process's first thread: the runtime cannot destroy that one, and /proc/self speaks for it.
func onThread(f func() (clean bool, err error)) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			result <- onThread(f) // elsewhere, as we hold this one
			return
		}
		clean, err := f()
		if clean {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// inside enters target on this thread, runs f and returns; back says whether the thread is where it was.
func inside(target *os.File, f func() error) (back bool, err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return true, fmt.Errorf("network namespace of this thread: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EPERM) {
			return true, fmt.Errorf("entering network namespace %s needs root: %w", target.Name(), err)
		}
		return true, fmt.Errorf("enter network namespace %s: %w", target.Name(), err)
	}
	err = f()
	back = unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil
	return back, err
}

// Open returns the namespace's file.
func (n Namespace) Open() (*os.File, error) {
	path := n.path
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist (any more): %w", n, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n, err)
	}
	return f, nil
}

// Exists reports whether n can be entered.
func (n Namespace) Exists() bool {
	if n.path == "" {
		return true
	}
	var st unix.Statfs_t
	return unix.Statfs(n.path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Create makes a named namespace whose loopback is up. It fails with fs.ErrExist if there is one of that
// name; a file that a crash left behind without its namespace is replaced.
func Create(name string) (Namespace, error) {
	n := Named(name)
	if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return n, fmt.Errorf("create network namespace: %q is no name", name)
	}
	if n.Exists() {
		return n, fmt.Errorf("create network namespace %s: %w", name, fs.ErrExist)
	}
	if err := os.MkdirAll(Folder, 0o755); err != nil {
		return n, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	f, err := os.OpenFile(n.path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return n, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	_ = f.Close()
	if err := onThread(func() (bool, error) { return false, pin(n.path) }); err != nil {
		_ = os.Remove(n.path)
		return n, fmt.Errorf("create network namespace %s (this needs root): %w", name, err)
	}
	if err := n.setUp("lo"); err != nil {
		return n, errors.Join(err, Delete(name))
	}
	return n, nil
}

// pin gives this thread a new namespace and mounts it at path, so that it outlives the thread.
func pin(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}

// Delete removes a named namespace. Its links go when its last process and socket have gone.
// One that does not exist is deleted already.
func Delete(name string) error {
	path := Named(name).path
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}

// List returns the names of namespaces that begin with prefix, those included that a crash left unmounted.
func List(prefix string) ([]string, error) {
	files, err := filepath.Glob(Folder + "/" + prefix + "*")
	if err != nil {
		return nil, fmt.Errorf("list network namespaces %s*: %w", prefix, err)
	}
	for i, f := range files {
		files[i] = filepath.Base(f)
	}
	return files, nil
}
