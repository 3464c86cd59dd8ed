// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Problem is configuration that is not in force as written.
type Problem struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Object   string `json:"object"`
	Field    string `json:"field"`
	Message  string `json:"message"`
	Severity string `json:"severity"` // "warning" or "error"
}

// String is one line, beginning with where to look.
func (p Problem) String() string {
	var parts []string
	if p.File != "" {
		place := p.File
		if p.Line > 0 {
			place = fmt.Sprintf("%s:%d", p.File, p.Line)
		}
		parts = append(parts, place)
	}
	for _, s := range []string{p.Object, p.Field, p.Message} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// A syncState is one resource type at one proxy, as /debug/syncz tells.
type syncState struct {
	Proxy string `json:"proxy"`
	Type  string `json:"type"`
	State string `json:"state"` // "synced", "lagging" or "nack"
	Text  string `json:"text"`
}

// askControl returns what the control plane refused, and what proxies refused of it; or why it cannot be asked.
func askControl(ctx context.Context, url string) (problems []Problem, trouble string) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	if err := fetch(ctx, client, url+"/debug/problems", &problems); err != nil {
		return nil, err.Error()
	}
	states, err := syncs(ctx, client, url)
	if err != nil {
		return problems, err.Error()
	}
	for _, s := range states {
		if s.State == "nack" {
			problems = append(problems, Problem{Object: s.Proxy, Field: s.Type, Message: "the proxy refuses its configuration: " + s.Text, Severity: "error"})
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Severity, b.Severity) }) // errors before warnings
	return problems, ""
}

func syncs(ctx context.Context, client *http.Client, url string) (states []syncState, err error) {
	err = fetch(ctx, client, url+"/debug/syncz", &states)
	return states, err
}

func fetch(ctx context.Context, client *http.Client, url string, into any) error {
	body, err := get(ctx, client, url)
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		return fmt.Errorf("control plane: %s: %w", url, err)
	}
	return nil
}

// Lagging returns the proxies that have not taken all their configuration yet, or refused some.
func Lagging(ctx context.Context, monitoring string) ([]string, error) {
	states, err := syncs(ctx, &http.Client{Timeout: 2 * time.Second}, monitoring)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range states {
		if s.State != "synced" && !slices.Contains(names, s.Proxy) {
			names = append(names, s.Proxy)
		}
	}
	slices.Sort(names)
	return names, nil
}
