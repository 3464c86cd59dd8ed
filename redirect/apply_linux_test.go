// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/netio/netns"
)

// create makes a namespace for one test, or skips it.
func create(t *testing.T, suffix string) netns.Namespace {
	t.Helper()
	if err := netns.Permitted(); err != nil {
		t.Skip("capture rules need root:", err)
	}
	name := fmt.Sprintf("mltmredir-%d-%s", os.Getpid(), suffix)
	n, err := netns.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	return n
}

// world is a workload's namespace with rules, and the outside connected to it.
type world struct {
	*testing.T
	inside, outside netns.Namespace
	inbound         chan net.Conn // accepted on 15006
	outbound        chan net.Conn // accepted on 15001
}

const (
	insideIP4, outsideIP4 = "10.254.9.2", "10.254.9.1"
	insideIP6, outsideIP6 = "fd00:9::2", "fd00:9::1"
)

func newWorld(t *testing.T, s Spec) *world {
	w := &world{T: t, inside: create(t, "in"), outside: create(t, "out")}
	err := netns.Connect(
		netns.End{Namespace: w.outside, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(outsideIP4 + "/24"), netip.MustParsePrefix(outsideIP6 + "/64")}},
		netns.End{Namespace: w.inside, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(insideIP4 + "/24"), netip.MustParsePrefix(insideIP6 + "/64")}},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.inside.AddDefaultRoute(netip.MustParseAddr(outsideIP4)); err != nil {
		t.Fatal(err)
	}
	rules, err := Capture(s)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // twice: replacing is no error
		if err := rules.Apply(w.inside); err != nil {
			t.Fatal(err)
		}
	}
	w.outbound = w.listen(w.inside, "[::]:15001")
	w.inbound = w.listen(w.inside, "[::]:15006")
	return w
}

// listen accepts everything on addr.
func (w *world) listen(ns netns.Namespace, addr string) chan net.Conn {
	w.Helper()
	l, err := ns.Listen(w.Context(), netip.MustParseAddrPort(addr), netio.SocketOptions{})
	if err != nil {
		w.Fatal(err)
	}
	accepted := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	w.Cleanup(func() { _ = l.Close() })
	return accepted
}

func (w *world) dial(ns netns.Namespace, d netio.Dialer, to string) {
	w.Helper()
	d.Timeout = 10 * time.Second
	c, err := ns.Dial(w.Context(), &d, netip.MustParseAddrPort(to))
	if err != nil {
		w.Fatalf("dial %s: %v", to, err)
	}
	w.Cleanup(func() { _ = c.Close() })
}

// arrives waits for a connection that wanted to go to want.
func (w *world) arrives(where chan net.Conn, want string) net.Conn {
	w.Helper()
	select {
	case c := <-where:
		w.Cleanup(func() { _ = c.Close() })
		if got, err := netio.OriginalDst(c); err != nil || got.String() != want {
			w.Errorf("original destination %s, %v; want %s", got, err, want)
		}
		return c
	case <-time.After(10 * time.Second):
		w.Fatalf("nobody arrived for %s", want)
	}
	return nil
}

var marked = netio.Dialer{Options: netio.SocketOptions{Mark: ProxyMark}}

func TestOutboundIsCaptured(t *testing.T) {
	w := newWorld(t, Defaults())
	// Addresses nobody has: the capture alone answers for them.
	w.dial(w.inside, netio.Dialer{}, "192.0.2.10:80")
	w.arrives(w.outbound, "192.0.2.10:80")
	w.dial(w.inside, netio.Dialer{}, "["+outsideIP6+"]:8443")
	w.arrives(w.outbound, "["+outsideIP6+"]:8443")
}

func TestProxyPasses(t *testing.T) {
	w := newWorld(t, Defaults())
	real := w.listen(w.outside, "[::]:80")
	w.dial(w.inside, marked, outsideIP4+":80")
	w.arrives(real, outsideIP4+":80")
	w.dial(w.inside, marked, "["+outsideIP6+"]:80")
	w.arrives(real, "["+outsideIP6+"]:80")
}

func TestInboundIsCapturedAndDeliveredWithoutALoop(t *testing.T) {
	w := newWorld(t, Defaults())
	app := w.listen(w.inside, "[::]:9080")
	for ip, in := range map[string]string{insideIP4: insideIP4 + ":9080", insideIP6: "[" + insideIP6 + "]:9080"} {
		w.dial(w.outside, netio.Dialer{}, in)
		w.arrives(w.inbound, in)
		d := marked
		d.Source = netio.PassthroughSource(netip.MustParseAddr(ip))
		w.dial(w.inside, d, in)
		c := w.arrives(app, in)
		if got := netio.AddrPortOf(c.RemoteAddr()).Addr(); got != d.Source {
			t.Errorf("application sees %s", got)
		}
	}
	// Ports of the proxy itself are not captured.
	for _, port := range []string{"15008", "15021"} {
		own := w.listen(w.inside, "0.0.0.0:"+port)
		w.dial(w.outside, netio.Dialer{}, insideIP4+":"+port)
		w.arrives(own, insideIP4+":"+port)
	}
}

func TestLoopback(t *testing.T) {
	w := newWorld(t, Defaults())
	app := w.listen(w.inside, "0.0.0.0:9080")
	w.dial(w.inside, netio.Dialer{}, "127.0.0.1:9080")
	w.arrives(app, "127.0.0.1:9080") // the application calls itself
	w.dial(w.inside, netio.Dialer{}, insideIP4+":9080")
	w.arrives(app, insideIP4+":9080")
	w.dial(w.inside, marked, "127.0.0.1:9080")
	w.arrives(app, "127.0.0.1:9080") // the proxy calls its application
	w.dial(w.inside, marked, insideIP4+":9080")
	w.arrives(w.inbound, insideIP4+":9080") // the outbound side came out at its own workload
}

func TestDNSIsCaptured(t *testing.T) {
	w := newWorld(t, Defaults())
	w.echo(w.inside, "127.0.0.1:15053", "mesh")
	w.echo(w.outside, outsideIP4+":53", "upstream")
	tcp := w.listen(w.inside, "127.0.0.1:15053")

	if got := w.ask(0, outsideIP4+":53"); got != "mesh" {
		t.Errorf("application got %q", got)
	}
	if got := w.ask(0, "127.0.0.53:53"); got != "mesh" {
		t.Errorf("through a resolver on loopback: %q", got)
	}
	if got := w.ask(ProxyMark, outsideIP4+":53"); got != "upstream" {
		t.Errorf("proxy got %q", got)
	}
	w.dial(w.inside, netio.Dialer{}, outsideIP4+":53")
	w.arrives(tcp, outsideIP4+":53")
}

// echo answers each datagram with text.
func (w *world) echo(ns netns.Namespace, addr, text string) {
	w.Helper()
	c, err := ns.ListenUDP(w.Context(), netip.MustParseAddrPort(addr), netio.SocketOptions{})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(text), from)
		}
	}()
}

// ask sends a datagram from inside and returns the answer; the socket is connected, so an answer
// from any other address than the one asked is not seen.
func (w *world) ask(mark uint32, to string) (answer string) {
	w.Helper()
	err := w.inside.Do(func() error {
		d := net.Dialer{Control: withMark(mark)}
		c, err := d.DialContext(context.Background(), "udp4", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(c, "?"); err != nil {
			return err
		}
		buf := make([]byte, 512)
		n, err := c.Read(buf)
		answer = string(buf[:n])
		return err
	})
	if err != nil {
		w.Errorf("ask %s: %v", to, err)
	}
	return answer
}

func TestExcluded(t *testing.T) {
	s := Defaults()
	s.ExcludeOutbound = []netip.Prefix{netip.MustParsePrefix("10.254.9.0/25")}
	s.ExcludeOutboundPorts = []uint16{3306}
	s.OnlyOutbound = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fd00:9::/64")}
	s.OnlyInboundPorts = []uint16{80}
	w := newWorld(t, s)
	real := w.listen(w.outside, "[::]:80")
	mysql := w.listen(w.outside, "[::]:3306")
	w.dial(w.inside, netio.Dialer{}, outsideIP4+":80")
	w.arrives(real, outsideIP4+":80")
	w.dial(w.inside, netio.Dialer{}, "["+outsideIP6+"]:3306")
	w.arrives(mysql, "["+outsideIP6+"]:3306")
	w.dial(w.inside, netio.Dialer{}, "192.0.2.77:80")
	w.arrives(w.outbound, "192.0.2.77:80")
	ssh := w.listen(w.inside, "0.0.0.0:22")
	w.dial(w.outside, netio.Dialer{}, insideIP4+":22")
	w.arrives(ssh, insideIP4+":22")
	w.dial(w.outside, netio.Dialer{}, insideIP4+":80")
	w.arrives(w.inbound, insideIP4+":80")
}

func TestRemove(t *testing.T) {
	w := newWorld(t, Defaults())
	real := w.listen(w.outside, "[::]:80")
	rules, _ := Capture(Defaults())
	for range 2 { // twice: removing what is not there is no error
		if err := rules.Remove(w.inside); err != nil {
			t.Fatal(err)
		}
	}
	w.dial(w.inside, netio.Dialer{}, outsideIP4+":80")
	w.arrives(real, outsideIP4+":80")
}

// TestAppliedIsWhatIsPrinted compares what the kernel has after Apply with what it has after nft -f String().
func TestAppliedIsWhatIsPrinted(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed: ", err)
	}
	s := Defaults()
	s.ExcludeOutbound = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/9"), netip.MustParsePrefix("2001:db8::/32")}
	s.ExcludeInterfaces = []string{"docker0"}
	s.DNSServers = []netip.Addr{netip.MustParseAddr("10.96.0.10")}
	all := []Rules{Share("meltemi_test", "mesh0", netip.MustParsePrefix("10.254.9.0/24"))}
	for _, v4only := range []bool{false, true} {
		s.IPv4Only = v4only
		rules, err := Capture(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rules)
	}
	for i, rules := range all {
		a, b := create(t, fmt.Sprint("a", i)), create(t, fmt.Sprint("b", i))
		if err := rules.Apply(a); err != nil {
			t.Fatal(err)
		}
		nft(t, b, rules.String(), "-f", "-")
		applied, printed := nft(t, a, "", "list", "ruleset"), nft(t, b, "", "list", "ruleset")
		if applied != printed {
			t.Errorf("applied:\n%s\nprinted:\n%s", applied, printed)
		}
		if !strings.Contains(applied, "chain") {
			t.Errorf("nothing there: %q", applied)
		}
	}
}

func nft(t *testing.T, ns netns.Namespace, in string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("nft", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &out
	if err := ns.Do(cmd.Run); err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out.Bytes())
	}
	return out.String()
}

// TestShare joins a namespace to the world through another one.
func TestShare(t *testing.T) {
	inside, machine, beyond := create(t, "in"), create(t, "mid"), create(t, "out")
	prefix := netip.MustParsePrefix
	for _, err := range []error{
		netns.Connect(netns.End{Namespace: machine, Name: "mesh0", Addrs: []netip.Prefix{prefix("10.254.9.1/24")}}, netns.End{Namespace: inside, Name: "eth0", Addrs: []netip.Prefix{prefix("10.254.9.2/24")}}),
		netns.Connect(netns.End{Namespace: machine, Name: "up0", Addrs: []netip.Prefix{prefix("192.0.2.1/24")}}, netns.End{Namespace: beyond, Name: "eth0", Addrs: []netip.Prefix{prefix("192.0.2.2/24")}}),
		inside.AddDefaultRoute(netip.MustParseAddr("10.254.9.1")),
		beyond.AddDefaultRoute(netip.MustParseAddr("192.0.2.1")),
		machine.AddDefaultRoute(netip.MustParseAddr("192.0.2.2")),
		machine.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }),
		Share("meltemi_test", "mesh0", prefix("10.254.9.0/24")).Apply(machine),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if links, err := machine.DefaultLinks(); err != nil || !slices.Equal(links, []string{"up0"}) {
		t.Errorf("default links %v, %v", links, err)
	}
	w := &world{T: t}
	outside := w.listen(beyond, "0.0.0.0:80")
	own := w.listen(inside, "0.0.0.0:80")
	w.dial(inside, netio.Dialer{}, "192.0.2.2:80")
	if c := w.arrives(outside, "192.0.2.2:80"); netio.AddrPortOf(c.RemoteAddr()).Addr().String() != "192.0.2.1" {
		t.Errorf("the world sees %s", c.RemoteAddr())
	}
	if c, err := beyond.Dial(t.Context(), &netio.Dialer{Timeout: 300 * time.Millisecond}, netip.MustParseAddrPort("10.254.9.2:80")); err == nil {
		_ = c.Close()
		t.Error("the world entered")
	}
	w.dial(machine, netio.Dialer{}, "10.254.9.2:80") // the machine itself may
	w.arrives(own, "10.254.9.2:80")
}

func TestApplyToAMissingNamespace(t *testing.T) {
	rules, _ := Capture(Defaults())
	if err := rules.Apply(netns.Named("mltm-does-not-exist")); err == nil {
		t.Error("applied to nothing")
	}
}

func withMark(mark uint32) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			if mark != 0 {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
			}
		}), err)
	}
}
