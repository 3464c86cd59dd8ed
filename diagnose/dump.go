// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// The shapes below are the parts of envoy.admin.v3.ConfigDump that tables show,
// in the field names that Envoy prints. Reading them as plain JSON keeps tables
// working on a proxy whose extensions we have never heard of.
type (
	metadata struct {
		FilterMetadata map[string]json.RawMessage `json:"filter_metadata"`
	}
	socketAddress struct {
		Address string `json:"address"`
		Port    int    `json:"port_value"`
	}
	address struct {
		Socket *socketAddress `json:"socket_address"`
		Pipe   *struct {
			Path string `json:"path"`
		} `json:"pipe"`
		Internal *struct {
			Name string `json:"server_listener_name"`
		} `json:"envoy_internal_address"`
	}
	failure struct {
		Details string `json:"details"`
		Version string `json:"version_info"`
	}

	listener struct {
		Name         string        `json:"name"`
		Address      address       `json:"address"`
		Chains       []filterChain `json:"filter_chains"`
		Default      *filterChain  `json:"default_filter_chain"`
		Direction    string        `json:"traffic_direction"`
		UseOriginal  bool          `json:"use_original_dst"`
		BindToPort   *bool         `json:"bind_to_port"`
		Metadata     metadata      `json:"metadata"`
		failure      *failure
		versionState string
	}
	filterChain struct {
		Name      string        `json:"name"`
		Match     chainMatch    `json:"filter_chain_match"`
		Filters   []netFilter   `json:"filters"`
		Transport *typedWrapper `json:"transport_socket"`
		Metadata  metadata      `json:"metadata"`
	}
	chainMatch struct {
		Port      int    `json:"destination_port"`
		Transport string `json:"transport_protocol"`
		Prefixes  []struct {
			Address string `json:"address_prefix"`
			Length  int    `json:"prefix_len"`
		} `json:"prefix_ranges"`
		ServerNames []string `json:"server_names"`
		Protocols   []string `json:"application_protocols"`
	}
	typedWrapper struct {
		Name string `json:"name"`
	}
	netFilter struct {
		Name  string       `json:"name"`
		Typed filterConfig `json:"typed_config"`
	}
	filterConfig struct {
		Cluster  string `json:"cluster"`
		Weighted *struct {
			Clusters []weighted `json:"clusters"`
		} `json:"weighted_clusters"`
		RDS *struct {
			Name string `json:"route_config_name"`
		} `json:"rds"`
		RouteConfig *routeTable `json:"route_config"`
	}
	weighted struct {
		Name   string `json:"name"`
		Weight int    `json:"weight"`
	}

	routeTable struct {
		Name  string        `json:"name"`
		Hosts []virtualHost `json:"virtual_hosts"`
	}
	virtualHost struct {
		Name     string      `json:"name"`
		Domains  []string    `json:"domains"`
		Routes   []routeRule `json:"routes"`
		Metadata metadata    `json:"metadata"`
	}
	routeRule struct {
		Name     string          `json:"name"`
		Match    routeMatch      `json:"match"`
		Route    *routeAction    `json:"route"`
		Redirect json.RawMessage `json:"redirect"`
		Direct   *struct {
			Status int `json:"status"`
		} `json:"direct_response"`
		Metadata metadata `json:"metadata"`
	}
	routeMatch struct {
		Prefix    *string `json:"prefix"`
		Path      *string `json:"path"`
		Separated *string `json:"path_separated_prefix"`
		Regex     *struct {
			Regex string `json:"regex"`
		} `json:"safe_regex"`
		Connect json.RawMessage   `json:"connect_matcher"`
		Headers []json.RawMessage `json:"headers"`
		Query   []json.RawMessage `json:"query_parameters"`
	}
	routeAction struct {
		Cluster  string `json:"cluster"`
		Weighted *struct {
			Clusters []weighted `json:"clusters"`
		} `json:"weighted_clusters"`
	}

	cluster struct {
		Name     string   `json:"name"`
		Type     string   `json:"type"`
		Metadata metadata `json:"metadata"`
		failure  *failure
	}
	secret struct {
		Name    string `json:"name"`
		Updated string `json:"last_updated"`
		Secret  struct {
			TLS *struct {
				Chain dataSource `json:"certificate_chain"`
			} `json:"tls_certificate"`
			Validation *struct {
				CA dataSource `json:"trusted_ca"`
			} `json:"validation_context"`
		} `json:"secret"`
		state string
	}
	dataSource struct {
		Inline       string `json:"inline_string"`
		InlineBase64 []byte `json:"inline_bytes"`
	}
)

func (d *dataSource) bytes() []byte {
	if len(d.InlineBase64) > 0 {
		return d.InlineBase64
	}
	return []byte(d.Inline)
}

// dump is a proxy's configuration.
type dump struct {
	listeners []listener
	routes    []routeTable
	clusters  []cluster
	secrets   []secret
}

// section is the union of what sections of a config dump hold.
type section struct {
	Type             string `json:"@type"`
	DynamicListeners []struct {
		Name    string         `json:"name"`
		Active  *listenerState `json:"active_state"`
		Warming *listenerState `json:"warming_state"`
		Error   *failure       `json:"error_state"`
	} `json:"dynamic_listeners"`
	StaticListeners []listenerState `json:"static_listeners"`
	DynamicRoutes   []routeState    `json:"dynamic_route_configs"`
	StaticRoutes    []routeState    `json:"static_route_configs"`
	StaticClusters  []clusterState  `json:"static_clusters"`
	ActiveClusters  []clusterState  `json:"dynamic_active_clusters"`
	WarmingClusters []clusterState  `json:"dynamic_warming_clusters"`
	StaticSecrets   []secret        `json:"static_secrets"`
	ActiveSecrets   []secret        `json:"dynamic_active_secrets"`
	WarmingSecrets  []secret        `json:"dynamic_warming_secrets"`
}

type listenerState struct {
	Version  string   `json:"version_info"`
	Listener listener `json:"listener"`
}

type routeState struct {
	Table routeTable `json:"route_config"`
}

type clusterState struct {
	Cluster cluster  `json:"cluster"`
	Error   *failure `json:"error_state"`
}

// dump asks p for its configuration.
func (m *Mesh) dump(ctx context.Context, p *Proxy) (*dump, []byte, error) {
	b, err := p.page(ctx, "GET", "/config_dump?include_eds", nil)
	if err != nil {
		return nil, nil, err
	}
	d, err := parseDump(b)
	if err != nil {
		return nil, nil, fmt.Errorf("proxy %s: %w", p.Name(), err)
	}
	return d, b, nil
}

func parseDump(b []byte) (*dump, error) {
	var all struct {
		Configs []json.RawMessage `json:"configs"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("config dump: %w", err)
	}
	d := &dump{}
	for _, raw := range all.Configs {
		var kind struct {
			Type string `json:"@type"`
		}
		if json.Unmarshal(raw, &kind) != nil || !shown(kind.Type) {
			continue
		}
		var s section
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("config dump: %s: %w", kind.Type, err)
		}
		d.add(&s)
	}
	return d, nil
}

func shown(typeURL string) bool {
	switch typeURL[strings.LastIndexByte(typeURL, '.')+1:] {
	case "ListenersConfigDump", "RoutesConfigDump", "ClustersConfigDump", "SecretsConfigDump":
		return true
	}
	return false
}

func (d *dump) add(s *section) {
	for i := range s.StaticListeners {
		d.listeners = append(d.listeners, s.StaticListeners[i].Listener)
	}
	for i := range s.DynamicListeners {
		dl := &s.DynamicListeners[i]
		var l listener
		switch {
		case dl.Active != nil:
			l = dl.Active.Listener
		case dl.Warming != nil:
			l = dl.Warming.Listener
			l.versionState = "warming"
		}
		if l.Name == "" {
			l.Name = dl.Name
		}
		l.failure = dl.Error
		d.listeners = append(d.listeners, l)
	}
	for _, list := range [][]routeState{s.StaticRoutes, s.DynamicRoutes} {
		for i := range list {
			d.routes = append(d.routes, list[i].Table)
		}
	}
	for _, list := range [][]clusterState{s.StaticClusters, s.ActiveClusters, s.WarmingClusters} {
		for i := range list {
			c := list[i].Cluster
			c.failure = list[i].Error
			d.clusters = append(d.clusters, c)
		}
	}
	for _, part := range []struct {
		list  []secret
		state string
	}{{s.StaticSecrets, "ACTIVE"}, {s.ActiveSecrets, "ACTIVE"}, {s.WarmingSecrets, "WARMING"}} {
		for i := range part.list {
			part.list[i].state = part.state
			d.secrets = append(d.secrets, part.list[i])
		}
	}
}

// origins are the objects that a resource came from: ours as "Kind/namespace/name
// field", Istio's as its path in the API.
func (md *metadata) origins() []string {
	var ours struct {
		From []string `json:"from"`
	}
	if raw, ok := md.FilterMetadata["meltemi.io"]; ok && json.Unmarshal(raw, &ours) == nil && len(ours.From) > 0 {
		return ours.From
	}
	var istio struct {
		Config string `json:"config"`
	}
	if raw, ok := md.FilterMetadata["istio"]; ok && json.Unmarshal(raw, &istio) == nil && istio.Config != "" {
		return []string{istioPath(istio.Config)}
	}
	return nil
}

// istioPath turns /apis/networking.istio.io/v1/namespaces/NS/virtual-service/NAME
// into VirtualService/NS/NAME.
func istioPath(path string) string {
	parts := strings.Split(path, "/")
	n := len(parts)
	if n < 5 || parts[n-4] != "namespaces" {
		return path
	}
	kind := ""
	for word := range strings.SplitSeq(parts[n-2], "-") {
		if word != "" {
			kind += strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return kind + "/" + parts[n-3] + "/" + parts[n-1]
}
