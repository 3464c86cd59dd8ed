// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package source holds what outside worlds report: objects that people wrote, and facts about what runs.
//
//	object.go    Key, Object, Origin, Places: the form of everything that is reported
//	facts.go     Service, Workload: facts in neutral words
//	problem.go   Problem: what is wrong with an object, and where
//	source.go    Source and Sink: the contract with each world
//	objects.go   Objects: one table per kind
//	gather.go    Gather: what all sources report, admitted, in tables
//	memory.go    Memory: a source whose objects this process puts itself
//
// # What Gather promises
//
// A table holds good objects only. An object that is refused, by its source because it cannot be read
// or by Admit because it makes no sense, leaves the last good version of that object in force; Objects.Problems says why.
// Where two sources report an object of the same key, the source that was listed first wins.
// Each Sink.Apply is one version of the graph.
package source
