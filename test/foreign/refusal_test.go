// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/test/mesh"
)

// badListener has a filter that nobody knows.
const badListener = `"@type": type.googleapis.com/envoy.config.listener.v3.Listener
name: %s
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
filter_chains:
- filters:
  - name: made.up
    typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: nothing}
`

// TestABadResourceIsRefusedAlone sends bad resources among good changes: the good
// ones are in force, the bad one's last good version stays, and it is named.
func TestABadResourceIsRefusedAlone(t *testing.T) {
	bothWays(t, func(t *testing.T, p *plane) {
		w := p.begin(t)
		load := mesh.StartLoad(t, 4, 2*time.Millisecond, w.main, "/", mesh.OK)
		load.More(20)
		t.Run("cluster", w.badCluster)
		t.Run("routes", w.badRoutes)
		t.Run("listener", w.badListener)
		t.Run("endpoints", w.badEndpoints)
		t.Run("secret", w.badSecret)
		load.More(50)
		total := load.Stop()
		t.Log(total)
		if total.Failed > 0 || total.Ended > 0 || total.Opened != 4 {
			t.Errorf("the main listener's callers were disturbed: %v", total)
		}
	})
}

// refuses waits for a refusal that names the bad one, and fails if it names a good one.
func (w *world) refuses(t *testing.T, kind, bad, good string) {
	t.Helper()
	var all []string
	mesh.Eventually(t, "the refusal of "+bad, func() error {
		all = append(all, w.refusals()...)
		for _, r := range all {
			if strings.HasPrefix(r, kind+": ") && strings.Contains(r, bad) {
				return nil
			}
		}
		return errors.New("there is none")
	})
	w.known = all
	for _, r := range all {
		t.Log(r)
		if strings.Contains(r, good) {
			t.Errorf("%s is refused, too: %s", good, r)
		}
	}
}

// mended waits until everything has been accepted after a push.
func (w *world) mended(t *testing.T, kind string) {
	t.Helper()
	w.mu.Lock()
	before := w.acks[kind]
	w.mu.Unlock()
	w.push()
	mesh.Eventually(t, "the mended resource is accepted", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.acks[kind] == before {
			return errors.New("it is not")
		}
		return nil
	})
	for _, r := range w.refusals() {
		if !slices.Contains(w.known, r) { // in state of the world this server repeats what was refused
			t.Errorf("refused: %s", r)
		}
	}
}

// badCluster breaks a cluster that is in use, while a good one comes.
func (w *world) badCluster(t *testing.T) {
	w.put(fmt.Sprintf(clusterYAML, "web", "1s", "ROUND_ROBIN") + `transport_socket: {name: made.up, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: x}}` + "\n")
	w.cluster("fine", "1s", "RANDOM")
	w.endpoints("fine", w.b)
	w.routes("main", `match: {prefix: /fine}, route: {cluster: fine}`, to("web"))
	w.push()
	becomes(t, w.call, "/fine", "b")
	becomes(t, w.call, "/", "a")
	w.refuses(t, "Cluster", "web", "fine")
	w.cluster("web", "2s", "ROUND_ROBIN")
	w.mended(t, "Cluster")
}

// badRoutes breaks the main table, while another one changes.
func (w *world) badRoutes(t *testing.T) {
	addr := freeporttest.Addr(t)
	c := mesh.NewCaller(t, addr)
	w.put(fmt.Sprintf(listenerYAML, "side", addr.Port(), "side", "side"))
	w.routes("side", to("web"))
	w.push()
	becomes(t, c, "/", "a")
	w.routes("main", `match: {safe_regex: {regex: "("}}, route: {cluster: fine}`, to("web"))
	w.routes("side", to("fine"))
	w.push()
	becomes(t, c, "/", "b")
	becomes(t, w.call, "/fine", "b")
	w.refuses(t, "RouteConfiguration", "main", "side")
	w.routes("main", `match: {prefix: /fine}, route: {cluster: fine}`, to("web"))
	w.mended(t, "RouteConfiguration")
}

func (w *world) badListener(t *testing.T) {
	broken, addr := freeporttest.Addr(t), freeporttest.Addr(t)
	c := mesh.NewCaller(t, addr)
	w.put(fmt.Sprintf(badListener, "broken", broken.Port()))
	w.put(fmt.Sprintf(listenerYAML, "third", addr.Port(), "third", "side"))
	w.push()
	becomes(t, c, "/", "b")
	w.refuses(t, "Listener", "broken", "third")
	// One that was good and is broken by a change stays as it was.
	w.put(fmt.Sprintf(badListener, "third", addr.Port()))
	w.drop(resource.ListenerType, "broken")
	w.push()
	w.refuses(t, "Listener", "third", "side")
	becomes(t, c, "/", "b")
	w.drop(resource.ListenerType, "third")
	w.mended(t, "Listener")
}

func (w *world) badEndpoints(t *testing.T) {
	w.endpoints("web", w.b)
	w.put(`"@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
cluster_name: fine
endpoints:
- lb_endpoints: [{endpoint: {address: {socket_address: {address: no.address.at.all, port_value: 1}}}}]
`)
	w.push()
	becomes(t, w.call, "/", "b")
	becomes(t, w.call, "/fine", "b")
	w.refuses(t, "ClusterLoadAssignment", "fine", "web")
	w.endpoints("fine", w.b)
	w.endpoints("web", w.a)
	w.mended(t, "ClusterLoadAssignment")
	becomes(t, w.call, "/", "a")
}

func (w *world) badSecret(t *testing.T) {
	ca, addr := newAuthority(t), freeporttest.Addr(t)
	w.put(fmt.Sprintf(listenerYAML, "secure", addr.Port(), "secure", "side") + fmt.Sprintf(tlsYAML, "Downstream", "server", "roots") + "      require_client_certificate: true\n")
	w.put(ca.secret(t, "server", 5))
	w.put(ca.roots("roots"))
	w.push()
	ask := func(serial int64) {
		t.Helper()
		mesh.Eventually(t, "TLS", func() error {
			state, err := ca.ask(t, addr)
			if err == nil && state.PeerCertificates[0].SerialNumber.Int64() != serial {
				err = fmt.Errorf("serial number %v", state.PeerCertificates[0].SerialNumber)
			}
			return err
		})
	}
	ask(5)
	w.put(fmt.Sprintf(secretYAML, "server") + "tls_certificate: {certificate_chain: {inline_string: rubbish}, private_key: {inline_string: hush-hush}}\n")
	w.push()
	w.refuses(t, "Secret", "server", "hush-hush")
	ask(5)
	w.put(ca.secret(t, "server", 6))
	w.mended(t, "Secret")
	ask(6)
}
