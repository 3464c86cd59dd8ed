// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meltemi/meltemi/control"
	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/proxy/explain"
)

// fakeControl is a control plane that says what it is told to say.
type fakeControl struct {
	clients    []push.ClientStatus
	problems   []control.Problem
	conditions []control.Condition
	places     map[string]string // by object and field: JSON
}

func (f *fakeControl) serve(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /debug/syncz", func(w http.ResponseWriter, _ *http.Request) { answer(w, f.clients) })
	mux.HandleFunc("GET /debug/problems", func(w http.ResponseWriter, _ *http.Request) { answer(w, f.problems) })
	mux.HandleFunc("GET /debug/conditions", func(w http.ResponseWriter, _ *http.Request) { answer(w, f.conditions) })
	mux.HandleFunc("GET /debug/places", func(w http.ResponseWriter, r *http.Request) {
		at, ok := f.places[strings.TrimSpace(r.URL.Query().Get("object")+" "+r.URL.Query().Get("field"))]
		if !ok {
			http.Error(w, "no file holds it", http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(at))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// fakeProxy serves pages from files, and answers explain.
func fakeProxy(t *testing.T, folder string, answer *explain.Answer, asked *explain.Query) string {
	t.Helper()
	mux := http.NewServeMux()
	page := func(file string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, filepath.Join(folder, file)) }
	}
	mux.HandleFunc("GET /config_dump", page("config_dump.json"))
	mux.HandleFunc("GET /clusters", page("clusters.json"))
	mux.HandleFunc("POST /explain", func(w http.ResponseWriter, r *http.Request) {
		if answer == nil {
			http.NotFound(w, r)
			return
		}
		_ = json.NewDecoder(r.Body).Decode(asked)
		_ = json.NewEncoder(w).Encode(answer)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func announce(t *testing.T, folder string, p Proxy) {
	t.Helper()
	b, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, p.Name()+".json"), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// asking returns a Mesh and what it prints.
func asking(m Mesh) (*Mesh, *bytes.Buffer) {
	var out bytes.Buffer
	m.Out = &out
	return &m, &out
}

// lines compares output with the lines wanted, any white space between words.
func lines(t *testing.T, out string, want ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(out) {
		if words := strings.Join(strings.Fields(line), " "); words != "" {
			got = append(got, words)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func admin(t *testing.T, addr string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func someTime() time.Time { return time.Now().Add(-90 * time.Second) }
