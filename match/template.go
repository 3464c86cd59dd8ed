// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package match

// A Template matches paths by segments: "*" or "{name}" stands for one segment,
// "**" or "{name=**}" for any number of them
// (envoy.extensions.path.match.uri_template.v3).
type Template struct{}
