// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package bookshop

import (
	"embed"
	"io/fs"
)

//go:embed config/*.yaml
var config embed.FS

// Configuration returns the YAML the sample starts with: services, gateway, subsets, routes, policies;
// one file each, at the root.
func Configuration() fs.FS {
	sub, err := fs.Sub(config, "config")
	if err != nil {
		panic(err) // the folder is embedded by this very file
	}
	return sub
}

// A Workload is a process of the sample.
type Workload struct {
	Service, Version string
	Account          string // service account
}

// Name is the workload's name: service and version.
func (w Workload) Name() string { return w.Service + "-" + w.Version }

// Labels are what selectors of Services and DestinationRules look for.
func (w Workload) Labels() map[string]string {
	return map[string]string{"app": w.Service, "version": w.Version}
}

// Workloads returns the processes of the sample, callees first.
func Workloads() []Workload {
	var ws []Workload
	for _, sv := range [][]string{{Ratings, "v1"}, {Details, "v1"}, {Reviews, "v1", "v2", "v3"}, {ProductPage, "v1"}} {
		for _, v := range sv[1:] {
			ws = append(ws, Workload{Service: sv[0], Version: v, Account: "bookinfo-" + sv[0]})
		}
	}
	return ws
}
