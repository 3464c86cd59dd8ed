// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package decode turns xDS messages, which package strict has checked, into the
// values of the rooms that work by them. It is pure but for certificates, which
// it leaves to package secrets.
//
//	matchers.go  strings, headers, metadata, addresses    to match
//	rbac.go      RBAC                                     to authz.Rules
//	filters.go   what routes say to fault, cors and rbac  to proxy/filter/stock
//	headers.go   header operations                        to route.HeaderOps
//	routes.go    RouteConfiguration                       to route.Config
//	action.go    RouteAction, redirects, answers          to route
//	retry.go     RetryPolicy                              to route.Retry
//	cluster.go   Cluster                                  to upstream.Spec
//	transport.go transport sockets                        to upstream.Transport
//	endpoints.go ClusterLoadAssignment                    to upstream.Assignment
//
// Errors begin with the path of the field that is wrong.
package decode
