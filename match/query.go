// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package match

// A Query is one condition on a query parameter
// (envoy.config.route.v3.QueryParameterMatcher): compared as it was sent, not
// percent-decoded, and the first of that name alone.
type Query struct {
	Name    string
	Present bool   // present_match: only presence is asked
	Value   String // otherwise
}

// Match says whether the query (without "?") fulfils the condition.
func (q *Query) Match(query string) bool {
	value, ok := QueryValue(query, q.Name)
	if !ok {
		return false
	}
	return q.Present || q.Value.Match(value)
}

// String describes q for explain.
func (q *Query) String() string {
	if q.Present {
		return "query parameter " + q.Name + ": present"
	}
	return "query parameter " + q.Name + ": " + q.Value.String()
}

// QueryValue returns the first value of a parameter as it was sent, and whether
// the parameter is there. "a" and "a=" both have the value "".
func QueryValue(query, name string) (string, bool) {
	for start := 0; start <= len(query); {
		end := start
		eq := -1
		for end < len(query) && query[end] != '&' {
			if query[end] == '=' && eq < 0 {
				eq = end
			}
			end++
		}
		key, value := query[start:end], ""
		if eq >= 0 {
			key, value = query[start:eq], query[eq+1:end]
		}
		if key == name && end > start {
			return value, true
		}
		start = end + 1
	}
	return "", false
}
