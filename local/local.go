// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package local is a whole mesh on one machine. The life of one, in file order:
//
//	config.go      what people may choose
//	folder.go      the state folder: who runs here, what was made, who is registered
//	sample.go      the sample's configuration, written where it can be edited
//	up.go          Up: clean, prepare, start, show, undo
//	prepare.go     configuration, ports and folders of a mesh that is to be started
//	plan.go        a Member: what one workload is, where it listens; pure
//	objects.go     a member's objects in Istio's own words; pure
//	place.go       where members live: behind explicit proxies, or
//	capture_*.go   each in a network namespace of its own, its traffic captured
//	argv.go        the command lines of our own children
//	member.go      a member starts, is watched, and leaves
//	process.go     one process: recorded, started, ended
//	run.go         Run: any command joins the running mesh
//
// Nothing here is a private way into the mesh: a member is registered by a WorkloadEntry in a watched folder,
// joins with a token, and is configured over xDS like any other. What shows the mesh is in watch and view,
// what proves it in check, what cleans up after a crash in made.
package local
