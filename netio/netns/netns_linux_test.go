// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/meltemi/meltemi/netio"
)

// create makes a namespace for one test, or skips it.
func create(t *testing.T, suffix string) Namespace {
	t.Helper()
	if err := Permitted(); err != nil {
		t.Skip("network namespaces need root:", err)
	}
	name := fmt.Sprintf("mltmtest-%d-%s", os.Getpid(), suffix)
	n, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Delete(name); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestTwoNamespacesTalkThroughABridge(t *testing.T) {
	hub, a, b := create(t, "hub"), create(t, "a"), create(t, "b")
	if err := hub.AddBridge("br0", netip.MustParsePrefix("10.255.7.1/24")); err != nil {
		t.Fatal(err)
	}
	for i, n := range []Namespace{a, b} {
		end := End{Namespace: n, Name: "eth0", Addrs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.255.7.%d/24", 10+i)),
			netip.MustParsePrefix(fmt.Sprintf("fd00:7::%d/64", 10+i)),
		}}
		if err := Connect(End{Namespace: hub, Name: fmt.Sprintf("port%d", i), Bridge: "br0"}, end); err != nil {
			t.Fatal(err)
		}
		if err := n.AddDefaultRoute(netip.MustParseAddr("10.255.7.1")); err != nil {
			t.Fatal(err)
		}
	}
	if links, err := hub.Links("port"); err != nil || len(links) != 2 {
		t.Errorf("links = %v, %v", links, err)
	}
	for _, addr := range []string{"10.255.7.11:0", "[fd00:7::11]:0"} {
		l, err := b.Listen(t.Context(), netip.MustParseAddrPort(addr), netio.SocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = io.WriteString(c, "hello")
				_ = c.Close()
			}
		}()
		c, err := a.Dial(t.Context(), &netio.Dialer{}, netio.AddrPortOf(l.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(c); string(got) != "hello" {
			t.Errorf("got %q", got)
		}
		_ = c.Close()
	}
	if err := hub.DeleteLink("port0"); err != nil {
		t.Error(err)
	}
	if err := hub.DeleteLink("port0"); err != nil {
		t.Error("deleting twice:", err)
	}
	if links, err := a.Links("eth"); err != nil || len(links) != 0 {
		t.Errorf("the other end stayed: %v, %v", links, err)
	}
}

func TestProcessesStartedInsideStayInside(t *testing.T) {
	n := create(t, "proc")
	f, err := n.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out strings.Builder
	cmd := exec.Command("cat", "/proc/self/net/dev")
	cmd.Stdout = &out
	if err := n.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "eth") || !strings.Contains(out.String(), "lo:") {
		t.Errorf("child saw %s", out.String())
	}
}

func TestDoComesBack(t *testing.T) {
	n := create(t, "back")
	here, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	wrong := errors.New("wrong")
	var there string
	err = n.Do(func() error {
		there, _ = os.Readlink("/proc/thread-self/ns/net")
		return wrong
	})
	if !errors.Is(err, wrong) {
		t.Errorf("err = %v", err)
	}
	if there == here || there == "" {
		t.Errorf("ran in %s, outside is %s", there, here)
	}
	for range 20 { // whichever thread this lands on
		if now, _ := os.Readlink("/proc/thread-self/ns/net"); now != here {
			t.Fatalf("a thread stayed in %s", now)
		}
	}
}

func TestCreateTwiceListAndRepair(t *testing.T) {
	n := create(t, "twice")
	name := strings.TrimPrefix(n.Path(), Folder+"/")
	if _, err := Create(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second create: %v", err)
	}
	if names, err := List("mltmtest-"); err != nil || !slices.Contains(names, name) {
		t.Errorf("list = %v, %v", names, err)
	}
	if err := Delete(name); err != nil {
		t.Fatal(err)
	}
	if n.Exists() {
		t.Error("exists after delete")
	}
	if err := n.Do(func() error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("entering a deleted one: %v", err)
	}
	// What a crash between making the file and mounting it leaves behind.
	if err := os.WriteFile(n.Path(), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(name); err != nil {
		t.Errorf("not repaired: %v", err)
	}
}

func TestZeroNamespaceIsOurs(t *testing.T) {
	ran := false
	if err := (Namespace{}).Do(func() error { ran = true; return nil }); err != nil || !ran {
		t.Errorf("%v, %v", ran, err)
	}
	for _, bad := range []string{"", "a/b", ".."} {
		if _, err := Create(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestStartShowsAProcessItsOwnFiles(t *testing.T) {
	n := create(t, "overlay")
	mine := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(mine, []byte("nameserver 10.9.8.7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile("/etc/resolv.conf")
	out, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("cat", "/etc/resolv.conf", "/proc/self/net/dev")
	cmd.Stdout, cmd.Stderr = out, out
	if err := n.Start(cmd, map[string]string{"/etc/resolv.conf": mine, "/etc/no-such-file": mine}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(out.Name())
	if !strings.Contains(string(got), "10.9.8.7") || strings.Contains(string(got), "eth") {
		t.Errorf("the process saw %s", got)
	}
	if after, _ := os.ReadFile("/etc/resolv.conf"); string(after) != string(before) {
		t.Error("everybody sees it")
	}
}

func TestRoutes(t *testing.T) {
	n := create(t, "routes")
	if err := n.AddBridge("br0", netip.MustParsePrefix("10.253.1.1/24")); err != nil {
		t.Fatal(err)
	}
	if err := n.AddDefaultRoute(netip.MustParseAddr("10.253.1.2")); err != nil {
		t.Fatal(err)
	}
	ranges, err := n.Routes()
	if err != nil || !slices.Contains(ranges, netip.MustParsePrefix("10.253.1.0/24")) {
		t.Errorf("got %v, %v", ranges, err)
	}
}

// TestFirstThreadStaysAtHome makes the first thread as likely as can be to be the one that is left behind.
func TestFirstThreadStaysAtHome(t *testing.T) {
	n := create(t, "first")
	home, _ := os.Readlink("/proc/self/ns/net")
	for i := range 200 {
		if err := onThread(func() (bool, error) {
			return false, unix.Unshare(unix.CLONE_NEWNET)
		}); err != nil {
			t.Fatal(err)
		}
		if err := n.Do(func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		if now, _ := os.Readlink("/proc/self/ns/net"); now != home {
			t.Fatalf("after %d: the process speaks from %s", i, now)
		}
	}
}
