// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package strict reads xDS messages and refuses what would be ignored: a field
// this build has never heard of, a field it knows and does not honour, a value
// that breaks the message's own constraints. Whoever configured it learns of it
// instead of wondering.
//
//	strict.go  Unmarshal, Check
//	parts.go   UnmarshalBut, Part: the same, one part at a time
//	fields.go  the table of what is honoured
//	object.go  Object: a Struct read with the same strictness
package strict
