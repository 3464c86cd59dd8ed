// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"fmt"
	"strconv"
	"time"
)

// A timeFormat is a strftime format, with Envoy's additions: %f, %1f to %9f for
// fractions of a second, %s for seconds since 1970, %3s to %9s for finer units.
type timeFormat struct {
	steps []timeStep
	local bool
}

// A timeStep is a Go layout, a fraction of n digits, or seconds with n more digits.
type timeStep struct {
	layout string
	kind   byte // 0: layout, 'f', 's', 'l': literal
	n      int
}

// layouts maps strftime's letters to Go's layouts.
var layouts = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'b': "Jan", 'B': "January",
	'h': "Jan", 'a': "Mon", 'A': "Monday", 'e': "_2", 'I': "03", 'p': "PM", 'z': "-0700", 'Z': "MST", 'j': "002",
	'T': "15:04:05", 'F': "2006-01-02", 'D': "01/02/06", 'R': "15:04", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05",
}

// isoTime is the default: 2006-01-02T15:04:05.000Z.
func isoTime(local bool) *timeFormat {
	zone := "Z"
	if local {
		zone = "-0700"
	}
	steps := []timeStep{{layout: "2006-01-02T15:04:05.000"}, {layout: zone, kind: 'l'}}
	if local {
		steps[1].kind = 0
	}
	return &timeFormat{steps: steps, local: local}
}

func compileTime(format string, local bool) (*timeFormat, error) {
	if format == "" {
		return isoTime(local), nil
	}
	t := &timeFormat{local: local}
	lit := ""
	flush := func() {
		if lit != "" {
			t.steps = append(t.steps, timeStep{layout: lit, kind: 'l'})
			lit = ""
		}
	}
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			lit += format[i : i+1]
			continue
		}
		i++
		n := 0
		if i < len(format) && format[i] >= '1' && format[i] <= '9' {
			n = int(format[i] - '0')
			i++
		}
		if i >= len(format) {
			return nil, fmt.Errorf("time format %q ends in the middle", clip(format))
		}
		switch c := format[i]; {
		case c == '%' && n == 0:
			lit += "%"
		case c == 'n' && n == 0:
			lit += " "
		case c == 'f':
			if n == 0 {
				n = 9
			}
			flush()
			t.steps = append(t.steps, timeStep{kind: 'f', n: n})
		case c == 's':
			flush()
			t.steps = append(t.steps, timeStep{kind: 's', n: n})
		case layouts[c] != "" && n == 0:
			flush()
			t.steps = append(t.steps, timeStep{layout: layouts[c]})
		default:
			return nil, fmt.Errorf("time format %q: %%%c is not known", clip(format), c)
		}
	}
	flush()
	return t, nil
}

func (t *timeFormat) append(b []byte, at time.Time) []byte {
	if t.local {
		at = at.Local()
	} else {
		at = at.UTC()
	}
	for i := range t.steps {
		s := &t.steps[i]
		switch s.kind {
		case 'l':
			b = append(b, s.layout...)
		case 'f':
			b = appendDigits(b, at.Nanosecond(), s.n)
		case 's':
			b = strconv.AppendInt(b, at.Unix(), 10)
			b = appendDigits(b, at.Nanosecond(), s.n)
		default:
			b = at.AppendFormat(b, s.layout)
		}
	}
	return b
}

// appendDigits appends the first n of the nine digits of a fraction.
func appendDigits(b []byte, nanos, n int) []byte {
	unit := 100_000_000
	for range n {
		b = append(b, byte('0'+nanos/unit%10))
		unit /= 10
	}
	return b
}
