// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package up

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/netio/netns"
)

// guarded sends every path to productpage, and denies two: one at the gateway, one at productpage.
const guarded = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: bookinfo-gateway, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bookinfo, namespace: default}
spec:
  hosts: ["*"]
  gateways: [bookinfo-gateway]
  http:
  - route: [{destination: {host: productpage, port: {number: 9080}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: at-the-gateway, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules: [{to: [{operation: {paths: ["/gate", "/gate/*"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: at-the-workload, namespace: default}
spec:
  selector: {matchLabels: {app: productpage}}
  action: DENY
  rules: [{to: [{operation: {paths: ["/desk", "/desk/*"]}}]}]
`

// TestSpellingsOfADeniedPath: a denied path is denied in every spelling that BASE normalization makes the same.
// The spellings that Istio documents as others are others; whoever denies them writes so.
func TestSpellingsOfADeniedPath(t *testing.T) {
	s := start(t, 0, "--no-capture", "--traffic", "0")
	s.awaitReady()
	if err := os.WriteFile(filepath.Join(s.dir, "meltemi-bookshop", "gateway.yaml"), []byte(guarded), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"gate", "desk"} {
		poll(t, "the policy on "+word, func() error {
			if status, err := raw("/"+word, "HTTP/1.1"); err != nil || status != http.StatusForbidden {
				return fmt.Errorf("%d, %v", status, err)
			}
			return nil
		})
		escaped := fmt.Sprintf("%%%02x", word[0]) + word[1:]
		for _, same := range []string{"/X", "/X/", "/X/y", "/X?y", "/X#y", "/./X", "/y/../X", "/../X", "/y/%2e%2e/X", "/X/.", "/X/./y", "/" + escaped, "/%2E/" + escaped, `/y\..\X`, `/X\y`, "/y//../../X"} {
			path := strings.ReplaceAll(same, "X", word)
			if status, err := raw(path, "HTTP/1.1"); err != nil || status != http.StatusForbidden && status != http.StatusBadRequest {
				t.Errorf("%s: %d, %v", path, status, err)
			}
		}
		for _, other := range []string{"//X", "/X;y", "/X%2fy", "/%2fX", "/X%5cy", "/Xy", "/%25" + escaped[1:], "/" + strings.ToUpper(word)} {
			path := strings.ReplaceAll(other, "X", word)
			if status, err := raw(path, "HTTP/1.1"); err != nil || status != http.StatusNotFound && status != http.StatusTemporaryRedirect { // which productpage says
				t.Errorf("%s: %d, %v", path, status, err)
			}
		}
		for _, none := range []string{`\X`, "/X%00", "/%00/X", "X"} {
			path := strings.ReplaceAll(none, "X", word)
			if status, err := raw(path, "HTTP/1.1"); err != nil || status != http.StatusBadRequest {
				t.Errorf("%s: %d, %v", path, status, err)
			}
		}
	}
}

// HTTP/1.0 is taken where it is asked for, as in Istio.
func TestHTTP10(t *testing.T) {
	for flag, want := range map[string]int{"--http10": 200, "--http10=false": 426} {
		s := start(t, 0, "--no-capture", "--traffic", "0", flag)
		s.awaitReady()
		if got, err := raw("/productpage", "HTTP/1.0"); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", flag, got, err, want)
		}
		s.interrupt()
		s.awaitEnd()
	}
}

// raw asks the gateway for a path as it is spelled.
func raw(path, version string) (int, error) {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:8080", 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET %s %s\r\nHost: localhost:8080\r\nConnection: close\r\n\r\n", path, version); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// A Gateway's ports are 80 and 443, as a rule: the gateway of a mesh that root runs opens them, too, though it is not root.
func TestGatewayOnALowPort(t *testing.T) {
	if err := netns.Permitted(); err != nil {
		t.Skip("nothing can be captured:", err)
	}
	s := start(t, 0, "--traffic", "0")
	s.awaitReady()
	file := filepath.Join(s.dir, "meltemi-bookshop", "gateway.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte("8080"), []byte("89")), 0o644); err != nil {
		t.Fatal(err)
	}
	poll(t, "a page on port 89", func() error {
		code, _, err := get("http://127.0.0.1:89/productpage")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("status %d", code)
		}
		return err
	})
}
