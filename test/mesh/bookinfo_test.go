// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/freeport/freeporttest"
	"github.com/meltemi/meltemi/samples/bookshop"
)

const (
	underTest = "under-test.yaml"
	page      = "/productpage"
	reviews   = "http://reviews:9080/reviews/0"
	ratings   = "http://ratings:9080/ratings/0"
	details   = "http://details:9080/details/0"
)

// TestBookinfo applies each of Bookinfo's routing files, as Istio ships them, and
// looks for the behaviour that its tutorials describe.
func TestBookinfo(t *testing.T) {
	s := &sample{StartBookshop(Start(t), "services.yaml")}
	t.Run("gateway", s.gateway)
	t.Run("cert-manager gateway", s.certManager)
	s.WriteShop("destination-rules.yaml", sampleFile(t, "destination-rule-all"))
	t.Run("all v1", s.allV1)
	t.Run("splits", s.splits)
	t.Run("v3", s.onlyV3)
	t.Run("by user", s.byUser)
	t.Run("delay", s.delay)
	t.Run("abort", s.abort)
	t.Run("details fault", s.detailsFault)
	t.Run("random", s.random)
	t.Run("mutual TLS", s.mutualTLS)
	for _, p := range s.Control.Problems() {
		t.Errorf("the control plane complains: %+v", p)
	}
}

type sample struct{ *Bookshop }

func sampleFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/bookinfo", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// apply puts files into force in the place of the last ones. In between every
// service answers 299, so that it is seen when each sidecar follows the new ones.
func (s *sample) apply(t *testing.T, names ...string) {
	t.Helper()
	var marker, text []string
	for _, svc := range []string{bookshop.ProductPage, bookshop.Details, bookshop.Reviews, bookshop.Ratings} {
		marker = append(marker, fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: %s
spec:
  hosts: [%[1]s]
  http:
  - directResponse: {status: 299}
`, svc))
	}
	s.Write(underTest, strings.Join(marker, "---\n"))
	s.everywhere(t, func(status int) bool { return status == 299 })
	for _, n := range names {
		text = append(text, sampleFile(t, n))
	}
	s.Write(underTest, strings.Join(text, "\n---\n"))
	s.everywhere(t, func(status int) bool { return status != 299 })
}

// everywhere waits until each service looks so from each sidecar.
func (s *sample) everywhere(t *testing.T, ok func(status int) bool) {
	t.Helper()
	for name, w := range s.Workloads {
		c := NewCaller(t, w.Proxy)
		for _, u := range []string{"http://productpage:9080/health", details, reviews, ratings} {
			Eventually(t, u+" from "+name, func() error {
				a, err := c.Get(u)
				if err == nil && !ok(a.Status) {
					err = fmt.Errorf("%d %s", a.Status, a.Body)
				}
				return err
			})
		}
	}
}

// spread asks n times, over four connections, and counts which pod of reviews answers.
func spread(t *testing.T, from *Workload, n int, header ...string) map[string]int {
	t.Helper()
	by := make(map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		c := NewCaller(t, from.Proxy)
		wg.Go(func() {
			for range n / 4 {
				pod, err := podOf(c.Get(reviews, header...))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				by[pod]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return by
}

func podOf(a *Answer, err error) (string, error) {
	if err != nil {
		return "", err
	}
	var body struct{ Podname string }
	if a.Status != http.StatusOK || json.Unmarshal([]byte(a.Body), &body) != nil {
		return "", fmt.Errorf("reviews answered %d %s", a.Status, a.Body)
	}
	return body.Podname, nil
}

// within fails unless each pod had its share, give or take five standard deviations:
// less than one good run in a million fails.
func within(t *testing.T, by map[string]int, shares map[string]float64) {
	t.Helper()
	n := 0
	for _, c := range by {
		n += c
	}
	for pod, share := range shares {
		mean, wide := float64(n)*share, 5*math.Sqrt(float64(n)*share*(1-share))
		if d := math.Abs(float64(by[pod]) - mean); d > wide {
			t.Errorf("%s answered %d of %d, want %.0f ± %.0f", pod, by[pod], n, mean, wide)
		}
		t.Logf("%s answered %d of %d, expected %.0f ± %.0f", pod, by[pod], n, mean, wide)
	}
	if len(by) != len(shares) {
		t.Errorf("%v answered, want %v", by, shares)
	}
}

// user returns a browser; with a name it has signed in.
func (s *sample) user(t *testing.T, name string) *http.Client {
	t.Helper()
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar, Timeout: 30 * time.Second, Transport: &http.Transport{}}
	t.Cleanup(c.CloseIdleConnections)
	if name != "" {
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // the page is not asked for yet
		resp, err := c.PostForm(s.URL+"/login", url.Values{"username": {name}, "passwd": {""}})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	return c
}

// shows fails unless the page has, or lacks (where the part begins with !), parts.
func (s *sample) shows(t *testing.T, c *http.Client, parts ...string) {
	t.Helper()
	status, body, _, err := Get(c, s.URL+page)
	if err != nil || status != http.StatusOK {
		t.Fatalf("the page: %d %v", status, err)
	}
	for _, p := range parts {
		text, absent := strings.CutPrefix(p, "!")
		if strings.Contains(body, text) == absent {
			t.Errorf("the page has %q: %v", text, !absent)
		}
	}
}

const (
	noStars     = "!★"
	black       = "stars black"
	red         = "stars red"
	noReviews   = "Sorry, product reviews are currently unavailable"
	noRatings   = "Ratings service is currently unavailable"
	noDetails   = "Sorry, product details are currently unavailable"
	someReviews = "Reviewer1"
)

func (s *sample) gateway(t *testing.T) {
	if _, _, _, err := Get(s.user(t, ""), s.URL+page); err == nil {
		t.Fatal("the gateway's port is open before the Gateway is there")
	}
	s.WriteShop("gateway.yaml", sampleFile(t, "bookinfo-gateway"))
	s.Ready()
	c := s.user(t, "")
	for path, want := range map[string]int{
		page: 200, "/api/v1/products": 200, "/api/v1/products/0/ratings": 200, "/logout": 200,
		"/productpages": 404, "/": 404, "/health": 404, "/static/nothing.css": 404,
	} {
		status, body, h, err := Get(c, s.URL+path)
		if err != nil || status != want {
			t.Errorf("%s: %d %v, want %d: %s", path, status, err, want, body)
		}
		// Who says 404 makes the difference: only routed paths get as far as the page.
		if routed := h.Get("Bookshop-Hop") != ""; routed != (want == 200 || strings.HasPrefix(path, "/static")) {
			t.Errorf("%s reached productpage: %v", path, routed)
		}
	}
}

func (s *sample) certManager(t *testing.T) {
	solver := serveApp(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "solved %s", r.URL.Path)
	}))
	s.Write("solver.yaml", fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cert-manager-resolver, namespace: istio-system}
spec:
  hosts: [cert-manager-resolver.istio-system.svc.cluster.local]
  ports: [{number: 8089, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1, ports: {http: %d}}]
`, solver.Port()))
	port := freeporttest.Addr(t)
	text := sampleFile(t, "certmanager-gateway")
	s.Write("cert-manager.yaml", strings.Replace(text, "number: 80\n", fmt.Sprintf("number: %d\n", port.Port()), 1))
	const challenge = "/.well-known/acme-challenge/abc"
	c := NewCaller(t, port)
	Eventually(t, "the challenge", func() error {
		a, err := c.Get(challenge)
		if err == nil && a.Body != "solved "+challenge {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	if a, err := c.Get(page); err != nil || a.Status != 404 {
		t.Errorf("another path: %+v %v, want 404", a, err)
	}
	s.Remove("cert-manager.yaml")
	Eventually(t, "the port is closed", func() error {
		c.Close()
		if a, err := c.Get(challenge); err == nil {
			return fmt.Errorf("%d", a.Status)
		}
		return nil
	})
	s.Remove("solver.yaml")
}

func (s *sample) allV1(t *testing.T) {
	s.apply(t, "virtual-service-all-v1")
	within(t, spread(t, s.Workloads["productpage-v1"], 400), map[string]float64{"reviews-v1": 1})
	s.shows(t, s.user(t, ""), someReviews, noStars)
}

func (s *sample) splits(t *testing.T) {
	for file, shares := range map[string]map[string]float64{
		"virtual-service-reviews-80-20": {"reviews-v1": .8, "reviews-v2": .2},
		"virtual-service-reviews-90-10": {"reviews-v1": .9, "reviews-v2": .1},
		"virtual-service-reviews-50-v3": {"reviews-v1": .5, "reviews-v3": .5},
		"virtual-service-reviews-v2-v3": {"reviews-v2": .5, "reviews-v3": .5},
	} {
		t.Run(file, func(t *testing.T) {
			s.apply(t, file)
			within(t, spread(t, s.Workloads["productpage-v1"], 2000), shares)
			// The same from outside, through gateway and page.
			outside := make(map[string]int)
			c := NewCaller(t, s.Gate())
			for range 400 {
				pod, err := podOf(c.Get("/api/v1/products/0/reviews"))
				if err != nil {
					t.Fatal(err)
				}
				outside[pod]++
			}
			within(t, outside, shares)
		})
	}
}

func (s *sample) onlyV3(t *testing.T) {
	s.apply(t, "virtual-service-reviews-v3")
	within(t, spread(t, s.Workloads["productpage-v1"], 400), map[string]float64{"reviews-v3": 1})
	s.shows(t, s.user(t, ""), red, "!"+black)
}

func (s *sample) byUser(t *testing.T) {
	for file, c := range map[string]struct{ others, pod string }{
		"virtual-service-reviews-test-v2":     {noStars, "reviews-v1"},
		"virtual-service-reviews-jason-v2-v3": {red, "reviews-v3"},
	} {
		t.Run(file, func(t *testing.T) {
			s.apply(t, file)
			w := s.Workloads["productpage-v1"]
			within(t, spread(t, w, 200, "end-user", "jason"), map[string]float64{"reviews-v2": 1})
			within(t, spread(t, w, 200), map[string]float64{c.pod: 1})
			within(t, spread(t, w, 200, "end-user", "jasons"), map[string]float64{c.pod: 1})
			s.shows(t, s.user(t, "jason"), black, "!"+red)
			s.shows(t, s.user(t, ""), c.others, "!"+black)
			s.shows(t, s.user(t, "alice"), c.others, "!"+black)
		})
	}
}

// delay is the tutorial's bug hunt: productpage gives up on reviews before reviews
// gives up on ratings.
func (s *sample) delay(t *testing.T) {
	s.apply(t, "virtual-service-reviews-test-v2", "virtual-service-ratings-test-delay")
	s.shows(t, s.user(t, ""), someReviews, "!"+noReviews)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		began := time.Now()
		s.shows(t, s.user(t, "jason"), noReviews)
		t.Logf("jason's page took %v", time.Since(began))
	})
	for _, from := range []string{"reviews-v2", "reviews-v3"} {
		c := NewCaller(t, s.Workloads[from].Proxy)
		began := time.Now()
		if a, err := c.Get(ratings); err != nil || a.Status != 200 {
			t.Errorf("ratings for anybody: %+v, %v", a, err)
		}
		wg.Go(func() {
			a, err := c.Get(ratings, "end-user", "jason")
			if took := time.Since(began); err != nil || a.Status != 200 || took < 7*time.Second {
				t.Errorf("ratings for jason took %v, want 7 s and success: %+v, %v", took, a, err)
			} else {
				t.Logf("ratings for jason took %v", took)
			}
		})
	}
}

func (s *sample) abort(t *testing.T) {
	s.apply(t, "virtual-service-reviews-test-v2", "virtual-service-ratings-test-abort")
	s.shows(t, s.user(t, "jason"), noRatings, someReviews, "!"+noReviews)
	s.shows(t, s.user(t, ""), someReviews, "!"+noRatings)
	c := NewCaller(t, s.Workloads["reviews-v2"].Proxy)
	for range 50 {
		if a, err := c.Get(ratings, "end-user", "jason"); err != nil || a.Status != 500 || a.Body != "fault filter abort" {
			t.Fatalf("ratings for jason: %+v, %v", a, err)
		}
		if a, err := c.Get(ratings); err != nil || a.Status != 200 {
			t.Fatalf("ratings for anybody: %+v, %v", a, err)
		}
	}
}

// detailsFault has two routes that match everything: the first wins.
func (s *sample) detailsFault(t *testing.T) {
	s.WriteShop("destination-rules.yaml", withoutRule(sampleFile(t, "destination-rule-all"), "details"))
	s.apply(t, "fault-injection-details-v1")
	c := NewCaller(t, s.Workloads["productpage-v1"].Proxy)
	for range 50 {
		if a, err := c.Get(details); err != nil || a.Status != 555 {
			t.Fatalf("details: %+v, %v, want 555", a, err)
		}
	}
	s.shows(t, s.user(t, ""), noDetails, someReviews)
	s.WriteShop("destination-rules.yaml", sampleFile(t, "destination-rule-all"))
}

// withoutRule drops one document, where a file under test brings its own.
func withoutRule(text, name string) string {
	var keep []string
	for doc := range strings.SplitSeq(text, "\n---\n") {
		if !strings.Contains(doc, "name: "+name+"\n") {
			keep = append(keep, doc)
		}
	}
	return strings.Join(keep, "\n---\n")
}

func (s *sample) random(t *testing.T) {
	s.WriteShop("destination-rules.yaml", withoutRule(sampleFile(t, "destination-rule-all"), "reviews"))
	s.apply(t, "destination-rule-reviews")
	within(t, spread(t, s.Workloads["productpage-v1"], 2000), map[string]float64{"reviews-v1": 1. / 3, "reviews-v2": 1. / 3, "reviews-v3": 1. / 3})
	// One caller in turn: of random choices a third are the same as the last, of round robin none.
	c, last, same := NewCaller(t, s.Workloads["productpage-v1"].Proxy), "", 0
	for range 900 {
		pod, err := podOf(c.Get(reviews))
		if err != nil {
			t.Fatal(err)
		}
		if pod == last {
			same++
		}
		last = pod
	}
	if same < 230 || same > 370 { // 300 ± 5 × 14.1
		t.Errorf("%d of 900 choices were the same as the one before, want 300 ± 70", same)
	}
}

func (s *sample) mutualTLS(t *testing.T) {
	s.Write("strict.yaml", `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`)
	s.WriteShop("destination-rules.yaml", sampleFile(t, "destination-rule-all-mtls"))
	s.apply(t, "virtual-service-reviews-v3")
	s.Ready()
	c := NewCaller(t, s.Gate())
	for range 100 {
		a, err := c.Get(page)
		if err != nil || a.Status != 200 {
			t.Fatalf("the page: %+v, %v", a, err)
		}
		peers := make(map[string]string)
		for _, hop := range a.Header.Values("Bookshop-Hop") {
			f := strings.Fields(hop)
			peers[f[2]] = f[3]
		}
		for pod, peer := range map[string]string{
			"productpage-v1": "gateway", "details-v1": "bookinfo-productpage", "reviews-v3": "bookinfo-productpage", "ratings-v1": "bookinfo-reviews",
		} {
			if want := "spiffe://cluster.local/ns/default/sa/" + peer; peers[pod] != want {
				t.Fatalf("%s saw %q call, want %q", pod, peers[pod], want)
			}
		}
	}
	s.Remove("strict.yaml")
}
