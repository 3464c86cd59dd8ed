// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/meltemi/meltemi/certs"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/xds"
)

// doorman is a Hub that notes who came and sends nothing.
type doorman struct{ came chan *xds.Client }

func (d doorman) Open(_ context.Context, c *xds.Client) (xds.Feed, error) {
	d.came <- c
	return silence{}, nil
}

type silence struct{}

func (silence) Subscribe(string, []string, []string, bool) {}
func (silence) Next(ctx context.Context) (*xds.Update, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (silence) Ack(string, string)          {}
func (silence) Nack(string, string, string) {}
func (silence) Close()                      {}

func TestWhoOpensAStream(t *testing.T) {
	a, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := doorman{came: make(chan *xds.Client, 1)}
	srv := xds.NewServer(door, xds.ServerConfig{Authenticate: a.Authenticate})
	g := grpc.NewServer(append(srv.Options(), grpc.Creds(credentials.NewTLS(a.ServerTLS())))...)
	srv.Register(g)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	t.Cleanup(srv.Close)

	web := identity("shop", "web")
	signer, err := a.Local(web)
	if err != nil {
		t.Fatal(err)
	}
	csr, load := request(t, web)
	chain, roots, err := signer.Sign(t.Context(), csr, 0)
	if err != nil {
		t.Fatal(err)
	}
	src := &certs.Source{}
	src.Set(load(chain, roots))

	const own, other = "sidecar~10.0.0.1~web.shop~shop.svc.cluster.local", "sidecar~10.0.0.1~web.bank~bank.svc.cluster.local"
	for name, c := range map[string]struct {
		token string
		src   *certs.Source
		node  string
		want  codes.Code
	}{
		"certificate":                        {"", src, own, codes.OK},
		"token":                              {a.token(t, ForIdentity(web)), nil, own, codes.OK},
		"certificate and a bad token":        {tokenPrefix + "bad", src, own, codes.OK},
		"nothing":                            {"", nil, own, codes.Unauthenticated},
		"bad token":                          {tokenPrefix + "bad", nil, own, codes.Unauthenticated},
		"token of many identities":           {a.token(t, Grant{Namespace: "shop"}), nil, own, codes.Unauthenticated},
		"certificate of another namespace":   {"", src, other, codes.PermissionDenied},
		"token for an account of the others": {a.token(t, Grant{Namespace: "shop", ServiceAccounts: []mesh.ServiceAccount{"web"}}), nil, other, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			cc, err := grpc.NewClient(l.Addr().String(),
				grpc.WithTransportCredentials(certs.Credentials(func() (*tls.Config, error) {
					pool := x509.NewCertPool()
					pool.AppendCertsFromPEM(a.RootPEM())
					return certs.ControlPlaneConfig(pool, c.src), nil
				})),
				grpc.WithPerRPCCredentials(certs.Bearer(func() (string, error) { return c.token, nil }, false)))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			st.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: c.node}, TypeUrl: "x"})
			if c.want == codes.OK {
				if who := <-door.came; who.Identity != web.String() || !who.Delta {
					t.Errorf("client %+v", who)
				}
				return
			}
			if _, err := st.Recv(); status.Code(err) != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
