// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package xds

// A Handler applies what a Subscriber receives.
type Handler interface {
	// Apply makes an Update current: Resources are added or replaced, Removed
	// are dropped or were found not to exist; this holds for delta and
	// state-of-the-world alike. A resource that is unchanged since it was last
	// accepted is left out. Full marks the first answer of a type. Removed goes first: what comes may
	// take what it had.
	//
	// What is returned is refused, one by one; the rest is in force. The server is told of all
	// refusals in one message. Apply may call Subscribe and Unsubscribe: such
	// changes are sent together, after the acknowledgement.
	//
	// Apply is called by one goroutine at a time.
	Apply(Update) []Rejection
}

// A Rejection is why one resource was not taken. What was in force under that name stays.
type Rejection struct {
	Name string
	Err  error
}
