// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package authz decides whether a request or a connection is permitted. It is
// pure and allocates nothing while deciding.
//
//	spec.go    Config, Policy, Rule: what rules are made from
//	compile.go Compile: Config to Rules; refuses what cannot be evaluated
//	check.go   Rules.Check: facts to a verdict
//	explain.go Rules.Explain: the same, with all that was considered
//
// The semantics are those of Envoy's RBAC (envoy.config.rbac.v3): a policy
// matches if one of its permissions and one of its principals does. ALLOW
// permits what some policy matches, DENY what none does, LOG everything.
//
// Where a fact is ambiguous it is read to the disadvantage of whoever asks. A
// header that came in several lines is compared both line by line and joined:
// in a policy that would deny, any reading that matches counts; in one that
// would allow, all readings must match. Under a negation it is the other way
// round. "Anybody but X" allows nobody whose identity is not proved. In these
// points we are stricter than Envoy, which lets plaintext pass there, and to which
// one line that matches is enough to allow.
package authz
