// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package accesslog writes a line for what passed, in Envoy's formats.
//
//	record.go    Record: what passed; filled by who conducted it
//	format.go    Compile: a format string to a Format; the grammar of %OPERATORS%
//	operators.go the table of operators
//	values.go    how values are written
//	time.go      %START_TIME(…)% and its strftime
//	json.go      CompileJSON: a tree of formats to a Format
//	writer.go    Writer: takes lines and never blocks; Files
//
// A Format is immutable. Appending a record to a line allocates nothing if the
// line's buffer is large enough. The same formats give header values, names of
// spans and hosts of tunnels their %OPERATORS%.
//
// Text that peers choose cannot break a record: control characters are written
// as \xNN in text, and as JSON has it in JSON.
package accesslog
