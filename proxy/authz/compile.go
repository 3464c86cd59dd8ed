// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package authz

// Rules is a compiled Config; immutable.
type Rules struct {
	action   Action
	policies []Policy // by name, which is the order of evaluation
}
