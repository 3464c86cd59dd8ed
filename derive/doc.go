// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package derive keeps results that are computed from rows, and recomputes only those that a
// change concerns.
//
// # The parts
//
//	Table    input rows; changed by Graph.Update, one batch in, one version out
//	Index    the rows of a table by what they contain
//	Query    a pure function of a key; its results are remembered, with what each run read
//	Context  what a function reads through; it records every read as a dependency
//	Watcher  tells which of the results it holds have really changed
//	Fork     the same tables and queries over a few changed rows; the base is untouched
//
// # How a change travels
//
// Update writes rows and follows the reverse edges from each changed row, marking every result
// that may have changed; nothing runs yet. When a marked result is asked for, its dependencies are
// checked in the order in which it read them; only if one really differs does its function run
// again, and if the new result equals the old one, whoever read it need not run (early cut-off). The old
// value is then kept, so that a pointer to an unchanged result stays the same pointer.
//
// # What may be relied upon
//
//   - A reader (Graph.Read, Fork.Read, Watcher.Drain) sees exactly one version, the newest when it began,
//     however long it takes. Updates do not wait for readers, and readers do not wait for each other,
//     except that two readers of one version who need the same missing result compute it once.
//   - A function must be pure: it reads its key and what it gets through its Context, and nothing else.
//     It must not keep the Context, use it from another goroutine, or call Update or Read.
//   - Values and the slices returned by Keys and Index.Get are shared. Nobody writes to them.
//   - A result is kept while a Hold is on it or a kept result has read it. Of the others a bounded
//     number is kept (see Graph.KeepIdle), the least recently used go first.
//   - A query that needs itself is a broken invariant: Get panics with the chain of names.
//   - A panic in a function reaches the reader that caused it to run; nothing is remembered of that run.
//   - equal, order and index functions must be pure, too; equal must be an equivalence.
//
// Why it is sound to serve several versions from one set of results, and other reasons: RATIONALE.md.
//
// # What it costs
//
// Measured by derive_bench_test.go with 100,000 rows and 1,000,000 results, each of two dependencies: about 250
// bytes a result (key, value, both directions of its edges), 220 a row, 130 a hold; 20 ns to read a result that is there,
// 1 µs to compute one (cold caches), 0.4 µs to find one unchanged. Changing a row costs what depends on it, and
// nothing else: if that is everything, everything is looked at, even if a cut-off then spares running it.
package derive
