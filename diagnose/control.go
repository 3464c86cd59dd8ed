// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/meltemi/meltemi/control"
	"github.com/meltemi/meltemi/control/push"
)

// Limits of one question.
const (
	askTimeout = 15 * time.Second
	maxAnswer  = 256 << 20 // a config dump of a large mesh
)

// errNotFound is a page that is not there.
var errNotFound = errors.New("not found")

// fetch asks url over client. An answer other than 200 is an error with its text.
func fetch(ctx context.Context, client *http.Client, method, url string, body io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxAnswer:
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", strings.TrimSpace(string(b[:min(len(b), 500)])), errNotFound)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(b[:min(len(b), 500)])))
	}
	return b, nil
}

// ask asks the control plane for a page in JSON.
func (m *Mesh) ask(ctx context.Context, page string, into any) error {
	if m.Monitoring == "" {
		return errors.New("no control plane is known: name the state folder of a running mesh with --dir, or its monitoring port with --monitoring")
	}
	b, err := fetch(ctx, http.DefaultClient, http.MethodGet, strings.TrimSuffix(m.Monitoring, "/")+page, nil)
	if err != nil {
		return fmt.Errorf("control plane at %s: %w", m.Monitoring, err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("control plane at %s: %s: %w", m.Monitoring, page, err)
	}
	return nil
}

func (m *Mesh) clients(ctx context.Context) (all []push.ClientStatus, err error) {
	return all, m.ask(ctx, "/debug/syncz", &all)
}

func (m *Mesh) problems(ctx context.Context) (all []control.Problem, err error) {
	return all, m.ask(ctx, "/debug/problems", &all)
}

func (m *Mesh) conditions(ctx context.Context) (all []control.Condition, err error) {
	return all, m.ask(ctx, "/debug/conditions", &all)
}

// places remembers where objects are written, for the time of one command.
type places struct {
	mesh  *Mesh
	known map[string]string
	// silent: the control plane did not answer once, and is not asked again.
	silent bool
}

func (m *Mesh) places() *places { return &places{mesh: m, known: map[string]string{}} }

// of is "file:line" of an origin, "Kind/namespace/name field", or "".
func (p *places) of(ctx context.Context, origin string) string {
	if at, ok := p.known[origin]; ok {
		return at
	}
	object, field, _ := strings.Cut(origin, " ")
	if p.silent || p.mesh.Monitoring == "" || strings.Count(object, "/") != 2 {
		return ""
	}
	var place struct {
		File string
		Line int
	}
	err := p.mesh.ask(ctx, "/debug/places?"+url.Values{"object": {object}, "field": {field}}.Encode(), &place)
	if err != nil && !errors.Is(err, errNotFound) {
		p.silent = true
	}
	at := place.File
	if at != "" && place.Line > 0 {
		at = fmt.Sprintf("%s:%d", shorten(at), place.Line)
	}
	p.known[origin] = at
	return at
}

// tell names origins with their places.
func (p *places) tell(ctx context.Context, origins []string) string {
	var out []string
	for _, o := range origins {
		if at := p.of(ctx, o); at != "" {
			o += " (" + at + ")"
		}
		out = append(out, o)
	}
	return strings.Join(out, ", ")
}

// short names the places of origins, or the objects of those that no file holds.
func (p *places) short(ctx context.Context, origins []string) string {
	var out []string
	for _, o := range origins {
		at := p.of(ctx, o)
		if at == "" {
			at, _, _ = strings.Cut(o, " ")
		}
		out = append(out, at)
	}
	return strings.Join(out, ", ")
}
