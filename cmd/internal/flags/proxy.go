// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package flags

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/pflag"

	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/proxy"
)

// Proxy adds the flags of a proxy to fs. Once they are parsed, the function it
// returns makes the configuration; messages go to w.
func Proxy(fs *pflag.FlagSet, w io.Writer) func() (proxy.Config, error) {
	cfg := proxy.Defaults()
	n := &cfg.Node
	n.Role = mesh.Sidecar
	n.ServiceAccount = mesh.DefaultServiceAccount
	n.TrustDomain = mesh.DefaultTrustDomain
	cfg.Version = Version()
	var interception, levels string
	var ips []string

	fs.StringVar((*string)(&n.Role), "role", string(n.Role), "sidecar, or router for a gateway")
	fs.StringVar(&n.Name, "name", "", "name of the workload (required with --control)")
	fs.StringVar((*string)(&n.Namespace), "namespace", "default", "its namespace")
	fs.StringVar((*string)(&n.ServiceAccount), "service-account", string(n.ServiceAccount), "its service account")
	fs.StringVar((*string)(&n.TrustDomain), "trust-domain", string(n.TrustDomain), "its trust domain")
	fs.Var(Labels{&n.Labels}, "labels", "its labels")
	fs.StringSliceVar(&ips, "ip", nil, "its addresses, the own one first (required with --control)")
	fs.StringVar(&n.Entry, "workload-entry", "", "WorkloadEntry that describes it")
	fs.StringVar(&n.Cluster, "cluster-id", "Kubernetes", "name of the cluster it belongs to")

	fs.StringVar(&cfg.Control, "control", "", "control plane, HOST:PORT")
	fs.BoolVar(&cfg.Plaintext, "control-plaintext", false, "speak to the control plane without TLS, and take no certificate from it")
	fs.StringVar(&cfg.RootFile, "root", "", "file with the root certificates of the control plane")
	fs.StringVar(&cfg.TokenFile, "token-file", "", "file with the join token")
	fs.StringVar(&cfg.Static, "static", "", "Envoy bootstrap whose static resources are in force from the start")
	fs.StringVar(&cfg.State, "state", "", "folder that keeps what is in use, for a start while the control plane is away")
	fs.DurationVar(&cfg.CertLifetime, "cert-lifetime", 0, "lifetime to ask for in certificates; 0 leaves it to the authority")
	fs.BoolVar(&n.OnDemand, "on-demand", false, "learn of destinations as they are called")

	fs.StringVar(&interception, "interception", "REDIRECT", "REDIRECT, or NONE where nothing is captured")
	fs.Uint16Var(&n.HTTPProxyPort, "http-proxy-port", 0, "port of the forward proxy for the application; 0: none")
	fs.Uint32Var(&cfg.Mark, "mark", 0, "SO_MARK of the proxy's own connections, which capture lets pass")

	fs.Var(Addr{&cfg.Admin}, "admin", "admin pages")
	fs.Var(Addr{&cfg.Metrics}, "metrics", "metrics")
	fs.Var(Addr{&cfg.Health}, "health", "readiness")
	fs.Var(Addr{&cfg.DNS}, "dns", "DNS server for the workload")
	fs.Var(&Addrs{To: &cfg.Resolvers}, "resolver", "resolver for names outside of the mesh; may be repeated")
	fs.StringVar(&cfg.ResolverSearch, "search", "", "first search domain of the workload's resolver")
	fs.DurationVar(&cfg.Drain, "drain", cfg.Drain, "how long open connections may go on at the end")
	fs.StringVar(&levels, "log-level", "warning", "trace, debug, info, warning, error or off; COMPONENT=LEVEL for one component")

	return func() (proxy.Config, error) {
		var err error
		if n.Name == "" && cfg.Control == "" {
			n.Name = "proxy" // nobody else asks what it is called
		}
		switch {
		case n.Name == "":
			return cfg, fmt.Errorf("--name: say what the workload is called")
		case n.Role != mesh.Sidecar && n.Role != mesh.Router:
			return cfg, fmt.Errorf("--role %s: want sidecar or router", n.Role)
		case interception != "REDIRECT" && interception != "NONE":
			return cfg, fmt.Errorf("--interception %s: want REDIRECT or NONE", interception)
		case cfg.Control == "" && cfg.Static == "":
			return cfg, fmt.Errorf("name a control plane with --control, or a static configuration with --static")
		case cfg.Control != "" && cfg.RootFile == "" && !cfg.Plaintext:
			return cfg, fmt.Errorf("--root: name the file with the control plane's root certificate, or say --control-plaintext")
		}
		n.NoCapture = interception == "NONE"
		for _, ip := range ips {
			a, err := netip.ParseAddr(ip)
			if err != nil {
				return cfg, fmt.Errorf("--ip %s: this is no IP address", ip)
			}
			n.Addrs = append(n.Addrs, a)
		}
		if cfg.Control != "" && len(n.Addrs) == 0 {
			return cfg, fmt.Errorf("--ip: say which address the workload has")
		}
		cfg.Logs, err = NewLogs(w, levels)
		return cfg, err
	}
}
