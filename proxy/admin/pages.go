// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/meltemi/meltemi/telemetry/logs"
)

// maxQuery bounds what /explain reads.
const maxQuery = 1 << 20

func (p *pages) state() string {
	switch {
	case p.Proxy.Draining():
		return "DRAINING"
	case p.Proxy.Ready() != nil:
		return "PRE_INITIALIZING"
	}
	return "LIVE"
}

func (p *pages) ready(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	s := p.state()
	if s != "LIVE" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, s)
	if err := p.Proxy.Ready(); err != nil {
		fmt.Fprintln(w, err)
	}
}

func (p *pages) serverInfo(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{
		"version": p.Version, "state": p.state(), "hot_restart_version": "disabled",
		"uptime_current_epoch": seconds(p.Started), "uptime_all_epochs": seconds(p.Started),
	})
}

func seconds(since time.Time) string { return fmt.Sprintf("%ds", int(time.Since(since).Seconds())) }

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	_ = enc.Encode(v)
}

func (p *pages) listeners(w http.ResponseWriter, r *http.Request) {
	sockets := p.Proxy.Sockets()
	if r.URL.Query().Get("format") != "json" {
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		for _, s := range sockets {
			for _, a := range s.Addrs {
				fmt.Fprintf(w, "%s::%s\n", s.Name, a)
			}
		}
		return
	}
	type status struct {
		Name  string `json:"name"`
		Local string `json:"local_address"`
	}
	var out []status
	for _, s := range sockets {
		for _, a := range s.Addrs {
			out = append(out, status{s.Name, a.String()})
		}
	}
	writeJSON(w, map[string]any{"listener_statuses": out})
}

func (p *pages) configDump(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	m, err := p.Proxy.ConfigDump(q.Has("include_eds"))
	if err == nil {
		m, err = narrow(m, q)
	}
	if bad := (badQuery{}); errors.As(err, &bad) {
		http.Error(w, bad.text, bad.status)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: " "}.Marshal(m)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

func (p *pages) certs(w http.ResponseWriter, _ *http.Request) {
	type detail struct {
		Serial     string              `json:"serial_number"`
		SANs       []map[string]string `json:"subject_alt_names"`
		Days       string              `json:"days_until_expiration"`
		ValidFrom  string              `json:"valid_from"`
		Expiration string              `json:"expiration_time"`
	}
	type pair struct {
		Chain []detail `json:"cert_chain"`
	}
	var out []pair
	for _, c := range p.Proxy.Certificates() {
		out = append(out, pair{Chain: []detail{{
			Serial: c.Serial, SANs: []map[string]string{{"uri": c.URI}},
			Days:      fmt.Sprint(int(time.Until(c.NotAfter).Hours() / 24)),
			ValidFrom: c.NotBefore.UTC().Format(time.RFC3339), Expiration: c.NotAfter.UTC().Format(time.RFC3339),
		}}})
	}
	writeJSON(w, map[string]any{"certificates": out})
}

func (p *pages) memory(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	writeJSON(w, map[string]string{
		"allocated": fmt.Sprint(m.HeapAlloc), "heap_size": fmt.Sprint(m.HeapSys), "total_physical_bytes": fmt.Sprint(m.Sys),
	})
}

// logging shows levels, and with POST sets one: ?level=debug for all, ?http=debug for a component.
func (p *pages) logging(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		for component, values := range r.URL.Query() {
			level, err := logs.ParseLevel(values[0])
			if component == "level" {
				component = ""
			}
			if err == nil {
				err = p.Logs.Set(component, level)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	fmt.Fprintln(w, "active loggers:")
	for name, level := range p.Logs.Levels() {
		fmt.Fprintf(w, "  %s: %s\n", name, strings.ToLower(level.String()))
	}
}

func (p *pages) explain(w http.ResponseWriter, r *http.Request) {
	query, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuery))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, err := p.Proxy.Explain(query)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, answer)
}

func (p *pages) drain(w http.ResponseWriter, r *http.Request) {
	p.Proxy.Drain(r.URL.Query().Has("inboundonly"))
	fmt.Fprintln(w, "OK")
}

func (p *pages) quit(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "OK")
	p.Proxy.Quit()
}
