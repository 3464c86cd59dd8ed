// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package push decides what each connected proxy is sent, when and in which order, and knows what it made of
// it. It sits between the engine, which says what has changed, and the xds server, which speaks to proxies.
//
//	hub.go        Hub: the feeds of all clients, and the settings they share
//	kind.go       Kind, Backend: what can be asked for, as queries over the engine
//	feed.go       one client: wait, collect what changed in one version, make updates in order
//	ask.go        what a client asked of a type and was not yet answered, as a net change
//	topic.go      one type of one client: what it wants, what it was sent
//	order.go      which types depend on which: cluster removals last, endpoints again after their cluster
//	status.go     what is in force where, from what proxies acknowledged
//
// A proxy's own key, made by its Backend from what it says of itself, is all that its configuration may depend on: proxies
// with equal keys are sent the same results. A client that wants everything of a type holds one result, the
// sorted list, whose unchanged parts are the same pointers as before; what changed is found by comparing
// the list with the one last sent. A client that asks by name holds one result per name.
//
// Subscriptions are answered at once. Changes wait until none has come for Config.Quiet, at most Config.Max.
package push
