// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meltemi/meltemi/mesh"
)

// This file alone knows the command lines of our own subcommands.

// drainAtEnd is how long a member's proxy may finish what is under way when the member leaves.
const drainAtEnd = time.Second

// controlArgs runs the control plane.
func controlArgs(state string, paths, listen []string, monitoring string, servingNames []string) []string {
	args := []string{"control", "--state", state, "--monitoring", monitoring}
	for _, p := range paths {
		args = append(args, "--config", p)
	}
	for _, a := range listen {
		args = append(args, "--xds", a)
	}
	for _, n := range servingNames {
		args = append(args, "--serving-name", n)
	}
	return args
}

// proxyArgs runs a member's proxy.
// resolver is where it asks for names outside of the mesh; "" for nowhere.
func proxyArgs(m *Member, control, root, token, resolver string) []string {
	role := "sidecar"
	if m.Gateway {
		role = "router"
	}
	args := []string{
		"proxy",
		"--role", role,
		"--name", m.Name,
		"--namespace", m.Namespace,
		"--service-account", m.Account,
		"--labels", labelList(m.labels()),
		"--ip", m.Addr.String(),
		"--control", control,
		"--root", root,
		"--token-file", token,
		"--admin", loopback(m.Admin).String(),
		"--drain", drainAtEnd.String(),
	}
	if !m.Gateway {
		args = append(args, "--workload-entry", m.Name)
	}
	if m.captured() {
		// What the workload calls is learned as it calls it. A forward proxy needs the whole table of names.
		args = append(args, "--on-demand")
		// Capture knows the proxy by its user: it needs no mark, for which it would need privileges.
		args = append(args, "--dns", loopback(mesh.PortDNS).String())
		if resolver != "" {
			args = append(args, "--resolver", resolver)
		}
	} else {
		// Side doors at fixed ports would be everybody's: the admin pages show the same.
		args = append(args, "--interception", "NONE", "--metrics", "off", "--health", "off")
	}
	if m.HTTPProxy != 0 {
		args = append(args, "--http-proxy-port", strconv.Itoa(int(m.HTTPProxy)))
	}
	return args
}

// bookshopArgs runs a service of the sample.
func bookshopArgs(m *Member, version string) []string {
	return []string{"bookshop", m.Service, version, "--listen", m.App.String(), "--instance", m.Name}
}

func labelList(ls map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(ls)) {
		parts = append(parts, fmt.Sprintf("%s=%s", k, ls[k]))
	}
	return strings.Join(parts, ",")
}

// proxyEnv tells an application where its proxy is, in the variables that HTTP libraries look at.
func proxyEnv(m *Member) []string {
	if m.HTTPProxy == 0 {
		return nil
	}
	url := "http://" + loopback(m.HTTPProxy).String()
	return []string{"HTTP_PROXY=" + url, "http_proxy=" + url, "NO_PROXY=localhost,127.0.0.1,::1", "no_proxy=localhost,127.0.0.1,::1"}
}
