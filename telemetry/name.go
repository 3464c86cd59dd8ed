// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package telemetry

import "strings"

// A Tag is a name and a value that tells series of one metric apart: a
// Prometheus label.
type Tag struct{ Key, Value string }

// A name is written as a template: "cluster.{cluster_name}.upstream_rq_total".
// In /stats the tag's value stands where its key does; for Prometheus it is cut
// out together with the separator before it, and becomes a label. Tags that the
// template does not mention are appended in /stats as ".key.value". A name with
// dots gets the prefix "envoy_" for Prometheus, as Envoy's own metrics have; one
// without ("istio_requests_total") is used as it is.

// textName is the name in /stats.
func textName(template string, tags []Tag) string {
	if len(tags) == 0 {
		return template
	}
	var b strings.Builder
	used := make([]bool, len(tags))
	rest := template
	for {
		i := strings.IndexByte(rest, '{')
		j := strings.IndexByte(rest, '}')
		if i < 0 || j < i {
			break
		}
		b.WriteString(rest[:i])
		key := rest[i+1 : j]
		for k, t := range tags {
			if t.Key == key {
				b.WriteString(t.Value)
				used[k] = true
			}
		}
		rest = rest[j+1:]
	}
	b.WriteString(rest)
	for k, t := range tags {
		if !used[k] {
			b.WriteByte('.')
			b.WriteString(t.Key)
			b.WriteByte('.')
			b.WriteString(t.Value)
		}
	}
	return b.String()
}

// promName is the name in Prometheus' exposition.
func promName(template string) string {
	var b strings.Builder
	if strings.IndexByte(template, '.') >= 0 {
		b.WriteString("envoy_")
	}
	rest := template
	for {
		i := strings.IndexByte(rest, '{')
		j := strings.IndexByte(rest, '}')
		if i < 0 || j < i {
			break
		}
		if i > 0 && (rest[i-1] == '.' || rest[i-1] == '_') {
			writeSanitized(&b, rest[:i-1])
		} else {
			writeSanitized(&b, rest[:i])
		}
		rest = rest[j+1:]
	}
	writeSanitized(&b, rest)
	return b.String()
}

// labelName is a tag's key as Prometheus allows it.
func labelName(key string) string {
	var b strings.Builder
	writeSanitized(&b, key)
	return b.String()
}

func writeSanitized(b *strings.Builder, s string) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == ':', c >= '0' && c <= '9' && b.Len() > 0:
			b.WriteByte(c)
		default:
			b.WriteByte('_')
		}
	}
}
