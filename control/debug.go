// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/meltemi/meltemi/control/push"
	"github.com/meltemi/meltemi/control/source"
	"github.com/meltemi/meltemi/daemon"
	"github.com/meltemi/meltemi/derive"
	"github.com/meltemi/meltemi/mesh"
	"github.com/meltemi/meltemi/telemetry"
)

// A Problem is one line of /debug/problems: what is wrong with an object, and
// where it stands.
type Problem struct {
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Object   string `json:"object,omitempty"` // Kind/namespace/name
	Field    string `json:"field,omitempty"`
	Severity string `json:"severity"` // "error": refused; "warning": in force
	Message  string `json:"message"`
}

// register adds the monitoring pages.
func (c *Control) register(a *daemon.Admin) {
	a.Handle("GET", "/ready", "200 once all configuration has been read", http.HandlerFunc(c.readyPage))
	a.Handle("GET", "/metrics", "metrics for Prometheus", http.HandlerFunc(c.metricsPage))
	a.Handle("GET", "/debug/syncz", "what each proxy was sent and made of it", http.HandlerFunc(c.synczPage))
	a.Handle("GET", "/debug/problems", "what is wrong with the configuration", http.HandlerFunc(c.problemsPage))
	a.Handle("GET", "/debug/conditions", "?object=KIND/NAMESPACE/NAME: what became of each object, and where it is in force", http.HandlerFunc(c.conditionsPage))
	a.Handle("GET", "/debug/places", "?object=KIND/NAMESPACE/NAME&field=PATH: the file and line", http.HandlerFunc(c.placesPage))
	a.Handle("GET", "/debug/derive", "results held and computed, by query", http.HandlerFunc(c.derivePage))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	_ = enc.Encode(v)
}

func (c *Control) readyPage(w http.ResponseWriter, _ *http.Request) {
	if err := c.ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	writeJSON(w, map[string]bool{"ready": true})
}

func (c *Control) metricsPage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_ = telemetry.WritePrometheus(w, c.metrics.Gather())
}

// Status is what each connected proxy was sent, and made of it.
func (c *Control) Status() []push.ClientStatus { return c.hub.Status() }

func (c *Control) synczPage(w http.ResponseWriter, _ *http.Request) {
	all := c.hub.Status()
	if all == nil {
		all = []push.ClientStatus{}
	}
	writeJSON(w, all)
}

// Problems lists everything that is wrong with the configuration, by file and line: what each object
// says by itself, and in the light of all others.
func (c *Control) Problems() []Problem {
	var found []source.Problem
	c.graph.Read(func(ctx *derive.Context) { found = c.statuses.Problems.Get(ctx, struct{}{}) })
	return lines(found)
}

func lines(found []source.Problem) []Problem {
	out := make([]Problem, 0, len(found))
	for _, p := range found {
		line := Problem{File: p.Place.File, Line: p.Place.Line, Field: p.Field, Severity: p.Severity.String(), Message: p.Message}
		if !p.Object.IsZero() {
			line.Object = p.Object.String()
		}
		out = append(out, line)
	}
	return out
}

// parseKey reads KIND/NAMESPACE/NAME.
func parseKey(s string) (source.Key, bool) {
	parts := strings.SplitN(s, "/", 3)
	if len(parts) != 3 {
		return source.Key{}, false
	}
	return source.Key{Kind: source.Kind(parts[0]), Namespace: mesh.Namespace(parts[1]), Name: parts[2]}, true
}

func (c *Control) problemsPage(w http.ResponseWriter, _ *http.Request) { writeJSON(w, c.Problems()) }

// placesPage says where an object, or a field of it, is written.
func (c *Control) placesPage(w http.ResponseWriter, r *http.Request) {
	key, ok := parseKey(r.URL.Query().Get("object"))
	if !ok {
		http.Error(w, "object: want KIND/NAMESPACE/NAME", http.StatusBadRequest)
		return
	}
	origin := source.Origin{Object: key, Field: r.URL.Query().Get("field")}
	var place source.Place
	c.graph.Read(func(ctx *derive.Context) { place = c.objects.Where(ctx, origin) })
	if place.File == "" {
		http.Error(w, "no file holds "+origin.Object.String(), http.StatusNotFound)
		return
	}
	writeJSON(w, map[string]any{"file": place.File, "line": place.Line})
}

func (c *Control) derivePage(w http.ResponseWriter, _ *http.Request) { writeJSON(w, c.graph.Stats()) }
