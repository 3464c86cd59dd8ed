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

	"github.com/meltemi/meltemi/control/push"
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

// askControl returns what the control plane refused, and what proxies refused of it; or why it cannot be asked.
func askControl(ctx context.Context, url string) (problems []Problem, trouble string) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	if err := fetch(ctx, client, url+"/debug/problems", &problems); err != nil {
		return nil, err.Error()
	}
	var clients []push.ClientStatus
	if err := fetch(ctx, client, url+"/debug/syncz", &clients); err != nil {
		return problems, err.Error()
	}
	for _, c := range clients {
		for _, t := range c.Types {
			for _, r := range t.Rejected {
				problems = append(problems, Problem{
					Object:   name(c.Node),
					Field:    r.Name,
					Message:  "the proxy refuses its configuration: " + r.Detail,
					Severity: "error",
				})
			}
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Severity, b.Severity) }) // errors before warnings
	return problems, ""
}

// name is the workload's part of a node's ID: "sidecar~10.0.0.1~reviews-v1.default~default.svc.cluster.local".
func name(node string) string {
	if parts := strings.Split(node, "~"); len(parts) == 4 {
		return parts[2]
	}
	return node
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
