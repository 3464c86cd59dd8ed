// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/meltemi/meltemi/local/watch"
)

// maxEvents and maxProblems are how many are shown at once, the newest and the worst.
const (
	maxEvents   = 6
	maxProblems = 8
	barWidth    = 12
)

// A style is how parts of the text are told apart.
type style struct{ head, good, bad, soft, bar func(string) string }

func plainStyle() style {
	same := func(s string) string { return s }
	return style{same, same, same, same, same}
}

// colorStyle paints with the terminal's own sixteen colors.
func colorStyle() style {
	paint := func(code string) func(string) string {
		return func(t string) string { return "\x1b[" + code + "m" + t + "\x1b[0m" }
	}
	return style{head: paint("1;36"), good: paint("32"), bad: paint("1;31"), soft: paint("90"), bar: paint("34")}
}

// render returns the whole screen. Lines are cut to width before they are painted.
func render(h Header, p watch.Picture, events []Event, width int, st style) string {
	var b strings.Builder
	line := func(paint func(string) string, format string, args ...any) {
		b.WriteString(paint(cut(fmt.Sprintf(format, args...), width)) + "\n")
	}
	line(st.head, "meltemi  %s", h.Page)
	line(st.soft, "edit %s and save; %s; q ends", h.Config, h.How)
	b.WriteString("\n")
	renderEdges(&b, p.Edges, width, st)
	var down []string
	for _, x := range p.Proxies {
		if x.Err != "" {
			down = append(down, x.Name)
		}
	}
	if len(down) > 0 {
		line(st.bad, "proxies that do not answer: %s", strings.Join(down, ", "))
	}
	if p.Control != "" {
		line(st.bad, "%s (traffic goes on without it)", p.Control)
	}
	for i, x := range p.Problems {
		if i == maxProblems {
			line(st.bad, "… and %d more", len(p.Problems)-i)
			break
		}
		paint := st.bad
		if x.Severity == "warning" {
			paint = st.soft
		}
		line(paint, "%s", x)
	}
	if len(events) > 0 {
		b.WriteString("\n")
	}
	for _, e := range events[max(0, len(events)-maxEvents):] {
		paint := st.soft
		if e.Bad {
			paint = st.bad
		}
		line(paint, "%s", eventLine(e))
	}
	return b.String()
}

func eventLine(e Event) string { return e.At.Format(time.TimeOnly) + "  " + e.Text }

// renderEdges draws one line per version, the caller and the service named on their first.
func renderEdges(b *strings.Builder, edges []watch.Edge, width int, st style) {
	if len(edges) == 0 {
		b.WriteString(st.soft(cut("no traffic seen yet", width)) + "\n\n")
		return
	}
	from, to := 4, 2
	for _, e := range edges {
		from, to = max(from, len([]rune(e.From))), max(to, len([]rune(e.To)))
	}
	from, to = min(from, 28), min(to, 24)
	head := fmt.Sprintf("%-*s  %-*s  %-6s %-*s %5s %7s %7s %8s %8s  %s", from, "FROM", to, "TO", "VER", barWidth, "SPLIT", "", "REQ/S", "OK", "P50", "P99", "mTLS")
	b.WriteString(st.soft(cut(head, width)) + "\n")
	var before watch.Edge
	for _, e := range edges {
		f, t := e.From, e.To
		if f == before.From {
			f = ""
			if t == before.To {
				t = ""
			}
		}
		before = e
		names := fmt.Sprintf("%-*s  %-*s  %-6s ", from, cut(f, from), to, cut(t, to), cut(e.Version, 6))
		bar := bar(e.Share)
		split := fmt.Sprintf(" %4.0f%% %7.1f ", e.Share*100, e.Rate)
		ok := fmt.Sprintf("%6.1f%%", e.Success*100)
		times := fmt.Sprintf(" %8s %8s  ", short(e.P50), short(e.P99))
		secure, paint := secured(e.Security, st)
		if len([]rune(names+bar+split+ok+times+secure)) > width {
			b.WriteString(cut(names+bar+split+ok+times+secure, width) + "\n")
			continue
		}
		okPaint := st.good
		if e.Success < 0.999 {
			okPaint = st.bad
		}
		b.WriteString(names + st.bar(bar) + split + okPaint(ok) + times + paint(secure) + "\n")
	}
	b.WriteString("\n")
}

func secured(s watch.Security, st style) (string, func(string) string) {
	switch s {
	case watch.Mutual:
		return "yes", st.good
	case watch.Plain:
		return "no", st.bad
	case watch.Mixed:
		return "partly", st.bad
	}
	return "?", st.soft
}

func bar(share float64) string {
	n := min(max(int(share*barWidth+0.5), 0), barWidth)
	return strings.Repeat("█", n) + strings.Repeat("░", barWidth-n)
}

// short writes a duration in at most seven characters.
func short(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

// cut shortens s to width characters.
func cut(s string, width int) string {
	r := []rune(strings.Map(printable, s))
	if len(r) <= width {
		return string(r)
	}
	if width < 1 {
		return ""
	}
	return string(r[:width-1]) + "…"
}

// printable keeps what others wrote from steering the terminal.
func printable(c rune) rune {
	if c < 0x20 || c >= 0x7f && c < 0xa0 {
		return ' '
	}
	return c
}
