// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/meltemi/meltemi/dns"
	"github.com/meltemi/meltemi/netio"
	"github.com/meltemi/meltemi/samples/bookshop"
)

// The test binary plays its own children. A control plane that knows the registrations, and proxies
// that carry bytes to where it says, show that everybody is where they should be; what real ones do
// with configuration is shown elsewhere.

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		play := map[string]func(context.Context, []string) error{"control": fakeControl, "proxy": fakeProxy, "bookshop": playBookshop, "up": playUp, "run": playRun, "app": playApp}[os.Args[1]]
		if play != nil {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			err := play(ctx, os.Args[2:])
			stop()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// fakeControl answers where each service is, over HTTP.
func fakeControl(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("control", flag.ContinueOnError)
	var paths, listen, names list
	fs.Var(&paths, "config", "")
	fs.Var(&listen, "xds", "")
	fs.Var(&names, "serving-name", "")
	monitoring := fs.String("monitoring", "", "")
	fs.String("state", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/debug/problems", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") })
	mux.HandleFunc("/debug/syncz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") })
	mux.HandleFunc("/gateway", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(gatewayPorts(paths)) })
	mux.HandleFunc("/where", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(whereIs(paths)) })
	mux.HandleFunc("/ingress", func(w http.ResponseWriter, r *http.Request) {
		eachEntry(paths, func(x entry) {
			if x.Kind == "Sidecar" && x.Metadata.Name == r.FormValue("name") {
				_ = json.NewEncoder(w).Encode(x.Spec.Ingress[0])
			}
		})
	})
	srv := &http.Server{Handler: mux}
	failed := make(chan error, 10)
	for _, addr := range append(listen, *monitoring) {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		go func() { failed <- srv.Serve(l) }()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// entry is what of a registration tells where a workload is.
type entry struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Address string
		Labels  map[string]string
		Ports   map[string]uint16
		Ingress []ingress
	}
}

type ingress struct {
	Port            struct{ Number uint16 }
	Bind            string
	DefaultEndpoint string `yaml:"defaultEndpoint"`
}

// eachEntry calls f for each object in the files of paths.
func eachEntry(paths []string, f func(entry)) {
	for _, root := range paths {
		files, _ := os.ReadDir(root)
		for _, file := range files {
			text := readFile(root + "/" + file.Name())
			for _, doc := range strings.Split(text, "\n---") {
				var x entry
				if yaml.Unmarshal([]byte(doc), &x) == nil {
					f(x)
				}
			}
		}
	}
}

// whereIs returns an address for each service.
func whereIs(paths []string) map[string]string {
	where := map[string]string{}
	eachEntry(paths, func(x entry) {
		if x.Kind == "WorkloadEntry" {
			where[x.Spec.Labels["app"]] = fmt.Sprintf("%s:%d", x.Spec.Address, x.Spec.Ports["http"])
		}
	})
	return where
}

// ask asks the control plane.
func ask(control, path string, into any) error {
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + control + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// fakeProxy carries connections to where the control plane says.
func fakeProxy(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("proxy", flag.ContinueOnError)
	name := fs.String("name", "", "")
	for _, ignored := range []string{"namespace", "service-account", "labels", "drain", "workload-entry", "dns", "resolver", "metrics", "health"} {
		fs.String(ignored, "", "")
	}
	fs.Bool("on-demand", false, "")
	role, address, control := fs.String("role", "", ""), fs.String("ip", "", ""), fs.String("control", "", "")
	root, token := fs.String("root", "", ""), fs.String("token-file", "", "")
	admin, interception, httpProxy := fs.String("admin", "", ""), fs.String("interception", "", ""), fs.String("http-proxy-port", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	for _, file := range []string{*root, *token} {
		if b, err := os.ReadFile(file); err != nil || len(b) == 0 {
			return fmt.Errorf("what a proxy needs: %q, %v", file, err)
		}
	}
	var err error
	switch {
	case *role == "router":
		err = fakeGateway(*control)
	case *interception == "NONE":
		err = fakeExplicit(*control, *name, *address, *httpProxy)
	default:
		err = fakeCaptured(ctx, *control)
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *admin)
	if err != nil {
		return err
	}
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}()
	<-ctx.Done()
	return nil
}

// carry relays what l accepts to where to says.
func carry(l net.Listener, to func(c net.Conn) (net.Conn, error)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			up, err := to(c)
			if err != nil {
				fmt.Fprintln(os.Stderr, "carry:", err)
				_ = c.Close()
				return
			}
			_ = netio.Relay(c, up, 0, new(netio.Counts))
		}()
	}
}

// service dials a service by its name.
func service(control, name string) (net.Conn, error) {
	where := map[string]string{}
	if err := ask(control, "/where", &where); err != nil {
		return nil, err
	}
	return net.Dial("tcp", where[name])
}

func fakeGateway(control string) error {
	var ports []uint16
	if err := ask(control, "/gateway", &ports); err != nil {
		return err
	}
	for _, p := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", p))
		if err != nil {
			return err
		}
		go carry(l, func(net.Conn) (net.Conn, error) { return service(control, "productpage") })
	}
	return nil
}

// fakeExplicit listens for callers where its Sidecar object says, and for its application.
func fakeExplicit(control, name, address, port string) error {
	l, err := net.Listen("tcp", net.JoinHostPort(address, port))
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, forward(control)) }()
	var own ingress
	if err := ask(control, "/ingress?name="+name, &own); err != nil {
		return err
	}
	in, err := net.Listen("tcp", fmt.Sprintf("%s:%d", own.Bind, own.Port.Number))
	if err != nil {
		return err
	}
	go carry(in, func(net.Conn) (net.Conn, error) { return net.Dial("tcp", own.DefaultEndpoint) })
	return nil
}

// forward is an HTTP proxy for calls to services.
func forward(control string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		where := map[string]string{}
		if err := ask(control, "/where", &where); err != nil {
			http.Error(w, err.Error(), 502)
			return
		}
		u := *r.URL
		u.Host = where[r.URL.Hostname()]
		req, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), r.Body)
		if err != nil {
			http.Error(w, err.Error(), 502)
			return
		}
		req.Header = r.Header
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			http.Error(w, err.Error(), 502)
			return
		}
		defer resp.Body.Close()
		for k, vs := range resp.Header {
			w.Header()[k] = vs
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
}

// fakeCaptured serves captured traffic and DNS.
func fakeCaptured(ctx context.Context, control string) error {
	in, err := net.Listen("tcp", ":15006")
	if err != nil {
		return err
	}
	go carry(in, func(c net.Conn) (net.Conn, error) {
		dst, err := netio.OriginalDst(c)
		if err != nil {
			return nil, err
		}
		d := netio.Dialer{Source: netio.PassthroughSource(dst.Addr())}
		return d.Dial(ctx, dst)
	})
	out, err := net.Listen("tcp", ":15001")
	if err != nil {
		return err
	}
	go carry(out, func(c net.Conn) (net.Conn, error) {
		dst, err := netio.OriginalDst(c)
		if err != nil {
			return nil, err
		}
		return new(netio.Dialer).Dial(ctx, dst)
	})
	cfg := dns.Defaults()
	cfg.Upstream = dns.ParseResolvConf(readFile("/etc/resolv.conf")).Servers
	cfg.Ask = func(_ context.Context, hosts []string) ([]netip.Addr, bool, error) {
		where := map[string]string{}
		if err := ask(control, "/where", &where); err != nil {
			return nil, false, err
		}
		ap, err := netip.ParseAddrPort(where[hosts[0]])
		if err != nil {
			return nil, false, nil
		}
		return []netip.Addr{ap.Addr()}, true, nil
	}
	s, err := dns.New(cfg)
	if err != nil {
		return err
	}
	s.Swap(dns.NewTable(nil))
	sockets, err := s.Open(ctx)
	if err != nil {
		return err
	}
	go func() { _ = s.Serve(ctx, sockets...) }()
	return nil
}

func readFile(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

func playBookshop(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bookshop", flag.ContinueOnError)
	listen, instance := fs.String("listen", "", ""), fs.String("instance", "", "")
	if err := fs.Parse(args[2:]); err != nil {
		return err
	}
	cfg := bookshop.Defaults()
	cfg.Listen, cfg.Instance = netip.MustParseAddrPort(*listen), *instance
	if p := os.Getenv("HTTP_PROXY"); p != "" {
		cfg.Proxy, _ = url.Parse(p)
	}
	return bookshop.Run(ctx, args[0], args[1], cfg)
}

// playApp is an application that joins: it serves on PORT, and calls others when asked to.
func playApp(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "fail" {
		os.Exit(7)
	}
	l, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		url := r.FormValue("call")
		if url == "" {
			_, _ = io.WriteString(w, "hello from the app")
			return
		}
		resp, err := http.Get(url)
		if err != nil {
			http.Error(w, err.Error(), 502)
			return
		}
		defer resp.Body.Close()
		_, _ = io.Copy(w, resp.Body)
	})}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	fmt.Println("app is up")
	if err := srv.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
