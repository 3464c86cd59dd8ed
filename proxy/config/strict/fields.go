// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package strict

// fields says, for each message that is read, which fields are honoured. A name
// after "~" is accepted although nothing here depends on it: it names things in
// statistics of Envoy's own, tunes what Envoy does and we do not need, or is
// information for people. Everything else is refused by name.
const fields = `
# listeners
envoy.config.listener.v3.Listener: name address additional_addresses filter_chains default_filter_chain use_original_dst per_connection_buffer_limit_bytes ~metadata listener_filters listener_filters_timeout continue_on_listener_filters_timeout transparent traffic_direction ~connection_balance_config ~enable_reuse_port access_log ~tcp_backlog_size ~max_connections_to_accept_per_socket_event bind_to_port ~ignore_global_conn_limit ~bypass_overload_manager ~stat_prefix ~deprecated_v1 ~drain_type
envoy.config.listener.v3.Listener.ConnectionBalanceConfig: ~exact_balance
envoy.config.listener.v3.Listener.ConnectionBalanceConfig.ExactBalance:
envoy.config.listener.v3.Listener.DeprecatedV1: bind_to_port
envoy.config.listener.v3.AdditionalAddress: address
envoy.config.core.v3.Address: socket_address pipe
envoy.config.core.v3.SocketAddress: protocol address port_value ~ipv4_compat ~resolver_name
envoy.config.core.v3.Pipe: path ~mode
envoy.config.core.v3.CidrRange: address_prefix prefix_len
envoy.config.core.v3.Metadata: filter_metadata ~typed_filter_metadata
envoy.config.core.v3.TransportSocket: name typed_config
envoy.config.core.v3.TypedExtensionConfig: name typed_config
envoy.config.listener.v3.FilterChain: filter_chain_match filters ~metadata transport_socket transport_socket_connect_timeout name
envoy.config.listener.v3.FilterChainMatch: destination_port prefix_ranges direct_source_prefix_ranges source_type source_prefix_ranges source_ports server_names transport_protocol application_protocols
envoy.config.listener.v3.Filter: name typed_config
envoy.config.listener.v3.ListenerFilter: name typed_config filter_disabled
envoy.config.listener.v3.ListenerFilterChainMatchPredicate: or_match and_match not_match any_match destination_port_range
envoy.config.listener.v3.ListenerFilterChainMatchPredicate.MatchSet: rules
envoy.type.v3.Int32Range: start end
envoy.extensions.filters.listener.original_dst.v3.OriginalDst:
envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector: ~initial_read_buffer_size max_client_hello_size
envoy.extensions.filters.listener.http_inspector.v3.HttpInspector:
envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol: allow_requests_without_proxy_protocol disallowed_versions ~stat_prefix
# access logs
envoy.config.accesslog.v3.AccessLog: name filter typed_config
envoy.config.accesslog.v3.AccessLogFilter: status_code_filter duration_filter not_health_check_filter traceable_filter and_filter or_filter header_filter response_flag_filter
envoy.config.accesslog.v3.StatusCodeFilter: comparison
envoy.config.accesslog.v3.DurationFilter: comparison
envoy.config.accesslog.v3.ComparisonFilter: op value
envoy.config.accesslog.v3.NotHealthCheckFilter:
envoy.config.accesslog.v3.TraceableFilter:
envoy.config.accesslog.v3.AndFilter: filters
envoy.config.accesslog.v3.OrFilter: filters
envoy.config.accesslog.v3.HeaderFilter: header
envoy.config.accesslog.v3.ResponseFlagFilter: flags
envoy.config.core.v3.RuntimeUInt32: default_value ~runtime_key
envoy.extensions.access_loggers.file.v3.FileAccessLog: path format json_format typed_json_format log_format
envoy.extensions.access_loggers.stream.v3.StdoutAccessLog: log_format
envoy.extensions.access_loggers.stream.v3.StderrAccessLog: log_format
envoy.config.core.v3.SubstitutionFormatString: text_format json_format text_format_source omit_empty_values ~content_type ~formatters ~json_format_options
envoy.config.core.v3.JsonFormatOptions: ~sort_properties
envoy.config.core.v3.DataSource: filename inline_bytes inline_string ~watched_directory
envoy.config.core.v3.WatchedDirectory: ~path
# matchers
envoy.type.matcher.v3.StringMatcher: exact prefix suffix safe_regex contains ignore_case
envoy.type.matcher.v3.RegexMatcher: ~google_re2 regex
envoy.type.matcher.v3.RegexMatcher.GoogleRE2: ~max_program_size
envoy.type.matcher.v3.RegexMatchAndSubstitute: pattern substitution
envoy.type.matcher.v3.PathMatcher: path
envoy.type.matcher.v3.MetadataMatcher: filter path value invert
envoy.type.matcher.v3.MetadataMatcher.PathSegment: key
envoy.type.matcher.v3.ValueMatcher: null_match double_match string_match bool_match present_match list_match or_match
envoy.type.matcher.v3.ValueMatcher.NullMatch:
envoy.type.matcher.v3.DoubleMatcher: range exact
envoy.type.matcher.v3.ListMatcher: one_of
envoy.type.matcher.v3.OrMatcher: value_matchers
envoy.type.v3.DoubleRange: start end
envoy.type.v3.Int64Range: start end
envoy.type.v3.FractionalPercent: numerator denominator
envoy.type.v3.Percent: value
envoy.config.core.v3.RuntimeFractionalPercent: default_value ~runtime_key
envoy.config.core.v3.RuntimeDouble: default_value ~runtime_key
envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig: path_template
# HTTP connection manager
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager: codec_type stat_prefix rds route_config http_filters tracing common_http_protocol_options http_protocol_options http2_protocol_options server_name server_header_transformation scheme_header_transformation max_request_headers_kb stream_idle_timeout request_timeout request_headers_timeout ~drain_timeout delayed_close_timeout access_log flush_access_log_on_new_request access_log_options use_remote_address xff_num_trusted_hops internal_address_config skip_xff_append via generate_request_id preserve_external_request_id always_set_request_id_in_response forward_client_cert_details set_current_client_cert_details proxy_100_continue upgrade_configs normalize_path merge_slashes path_with_escaped_slashes_action request_id_extension strip_matching_host_port strip_any_host_port ~stream_error_on_invalid_http_message strip_trailing_host_dot append_x_forwarded_port
envoy.extensions.filters.network.http_connection_manager.v3.Rds: config_source route_config_name
envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter: name typed_config is_optional disabled
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing: client_sampling random_sampling overall_sampling max_path_tag_length custom_tags provider spawn_upstream_span operation no_context_propagation
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.HcmAccessLogOptions: flush_access_log_on_new_request
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig: unix_sockets cidr_ranges
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails: subject cert chain dns uri
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig: upgrade_type enabled
envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension: typed_config
envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig: pack_trace_reason use_request_id_for_trace_sampling
envoy.config.core.v3.SchemeHeaderTransformation: scheme_to_overwrite
envoy.config.core.v3.HttpProtocolOptions: idle_timeout max_connection_duration max_headers_count max_stream_duration headers_with_underscores_action max_requests_per_connection
envoy.config.core.v3.Http1ProtocolOptions: allow_absolute_url accept_http_10 default_host_for_http_10 header_key_format enable_trailers ~allow_chunked_length ~override_stream_error_on_invalid_http_message ~use_balsa_parser ~allow_custom_methods
envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat: stateful_formatter
envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig: ~forward_reason_phrase ~formatter_type_on_envoy_headers
envoy.config.core.v3.Http2ProtocolOptions: ~hpack_table_size max_concurrent_streams initial_stream_window_size initial_connection_window_size ~allow_connect connection_keepalive ~stream_error_on_invalid_http_messaging ~override_stream_error_on_invalid_http_message ~max_outbound_frames ~max_outbound_control_frames ~max_consecutive_inbound_frames_with_empty_payload ~max_inbound_priority_frames_per_stream ~max_inbound_window_update_frames_per_data_frame_sent ~use_oghttp2_codec
envoy.config.core.v3.KeepaliveSettings: interval timeout ~interval_jitter
envoy.config.trace.v3.Tracing.Http: name typed_config
envoy.config.trace.v3.OpenTelemetryConfig: grpc_service http_service service_name ~resource_detectors ~max_cache_size
envoy.config.core.v3.GrpcService: envoy_grpc ~timeout ~initial_metadata
envoy.config.core.v3.GrpcService.EnvoyGrpc: cluster_name ~authority ~max_receive_message_length ~retry_policy
envoy.config.core.v3.HttpService: http_uri
envoy.config.core.v3.HttpUri: uri cluster ~timeout
envoy.config.core.v3.HeaderValue: key value raw_value
envoy.type.tracing.v3.CustomTag: tag literal environment request_header value
envoy.type.tracing.v3.CustomTag.Literal: value
envoy.type.tracing.v3.CustomTag.Environment: name default_value
envoy.type.tracing.v3.CustomTag.Header: name default_value
# HTTP filters
envoy.extensions.filters.http.router.v3.Router: ~dynamic_stats start_child_span upstream_log suppress_envoy_headers ~strict_check_headers respect_expected_rq_timeout ~suppress_grpc_request_failure_code_stats
envoy.extensions.filters.http.grpc_stats.v3.FilterConfig: ~emit_filter_state ~stats_for_all_methods ~individual_method_stats_allowlist ~enable_upstream_stats
envoy.config.core.v3.GrpcMethodList: ~services
envoy.config.core.v3.GrpcMethodList.Service: ~name ~method_names
envoy.extensions.filters.http.cors.v3.Cors:
envoy.extensions.filters.http.cors.v3.CorsPolicy: allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials filter_enabled allow_private_network_access forward_not_matching_preflights
envoy.extensions.filters.http.fault.v3.HTTPFault: delay abort upstream_cluster headers max_active_faults ~delay_percent_runtime ~abort_percent_runtime ~delay_duration_runtime ~abort_http_status_runtime ~max_active_faults_runtime ~abort_grpc_status_runtime ~disable_downstream_cluster_stats
envoy.extensions.filters.common.fault.v3.FaultDelay: fixed_delay percentage
envoy.extensions.filters.http.fault.v3.FaultAbort: http_status grpc_status percentage
envoy.extensions.filters.http.rbac.v3.RBAC: rules rules_stat_prefix shadow_rules shadow_rules_stat_prefix ~track_per_rule_stats
envoy.extensions.filters.http.rbac.v3.RBACPerRoute: rbac
envoy.extensions.filters.network.rbac.v3.RBAC: rules shadow_rules shadow_rules_stat_prefix stat_prefix enforcement_type
envoy.config.rbac.v3.RBAC: action policies
envoy.config.rbac.v3.Policy: permissions principals
envoy.config.rbac.v3.Permission: and_rules or_rules any header url_path destination_ip destination_port destination_port_range metadata not_rule requested_server_name uri_template
envoy.config.rbac.v3.Permission.Set: rules
envoy.config.rbac.v3.Principal: and_ids or_ids any authenticated direct_remote_ip remote_ip source_ip header url_path metadata not_id
envoy.config.rbac.v3.Principal.Set: ids
envoy.config.rbac.v3.Principal.Authenticated: principal_name
envoy.config.route.v3.FilterConfig: config is_optional disabled
# routes
envoy.config.route.v3.RouteConfiguration: name virtual_hosts internal_only_headers response_headers_to_add response_headers_to_remove request_headers_to_add request_headers_to_remove most_specific_header_mutations_wins ~validate_clusters max_direct_response_body_size_bytes ignore_port_in_host_matching typed_per_filter_config ~metadata
envoy.config.route.v3.VirtualHost: name domains routes require_tls request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove typed_per_filter_config include_request_attempt_count include_attempt_count_in_response retry_policy per_request_buffer_limit_bytes request_mirror_policies ~metadata
envoy.config.route.v3.Route: name match route redirect direct_response metadata decorator typed_per_filter_config request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove per_request_buffer_limit_bytes ~stat_prefix
envoy.config.route.v3.RouteMatch: prefix path safe_regex connect_matcher path_separated_prefix path_match_policy case_sensitive runtime_fraction headers query_parameters grpc tls_context dynamic_metadata
envoy.config.route.v3.RouteMatch.ConnectMatcher:
envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions:
envoy.config.route.v3.RouteMatch.TlsContextMatchOptions: presented validated
envoy.config.route.v3.HeaderMatcher: name exact_match safe_regex_match range_match present_match prefix_match suffix_match contains_match string_match invert_match treat_missing_header_as_empty
envoy.config.route.v3.QueryParameterMatcher: name string_match present_match
envoy.config.route.v3.RouteAction: cluster weighted_clusters cluster_not_found_response_code prefix_rewrite regex_rewrite path_rewrite host_rewrite_literal auto_host_rewrite host_rewrite_header host_rewrite_path_regex append_x_forwarded_host timeout idle_timeout retry_policy request_mirror_policies priority hash_policy max_grpc_timeout grpc_timeout_offset upgrade_configs max_stream_duration
envoy.config.route.v3.RouteAction.RequestMirrorPolicy: cluster runtime_fraction trace_sampled disable_shadow_host_suffix_append
envoy.config.route.v3.RouteAction.HashPolicy: header cookie connection_properties query_parameter terminal
envoy.config.route.v3.RouteAction.HashPolicy.Header: header_name regex_rewrite
envoy.config.route.v3.RouteAction.HashPolicy.Cookie: name ttl path attributes
envoy.config.route.v3.RouteAction.HashPolicy.CookieAttribute: name value
envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties: source_ip
envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter: name
envoy.config.route.v3.RouteAction.UpgradeConfig: upgrade_type enabled connect_config
envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig: allow_post
envoy.config.route.v3.RouteAction.MaxStreamDuration: max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset
envoy.config.route.v3.WeightedCluster: clusters total_weight ~runtime_key_prefix header_name
envoy.config.route.v3.WeightedCluster.ClusterWeight: name weight request_headers_to_add request_headers_to_remove response_headers_to_add response_headers_to_remove typed_per_filter_config host_rewrite_literal
envoy.config.core.v3.HeaderValueOption: header append append_action keep_empty_value
envoy.config.route.v3.RetryPolicy: retry_on num_retries per_try_timeout per_try_idle_timeout retry_priority retry_host_predicate host_selection_retry_max_attempts retriable_status_codes retry_back_off retriable_headers retriable_request_headers
envoy.config.route.v3.RetryPolicy.RetryPriority: name typed_config
envoy.config.route.v3.RetryPolicy.RetryHostPredicate: name typed_config
envoy.config.route.v3.RetryPolicy.RetryBackOff: base_interval max_interval
envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate:
envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig: update_frequency
envoy.config.route.v3.RedirectAction: https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite regex_rewrite response_code strip_query
envoy.config.route.v3.DirectResponseAction: status body
envoy.config.route.v3.Decorator: operation propagate
# TCP proxy
envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy: stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts hash_policy tunneling_config max_downstream_connection_duration flush_access_log_on_connected access_log_options
envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster: clusters
envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight: name weight
envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig: hostname use_post post_path headers_to_add propagate_response_headers
envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TcpAccessLogOptions: flush_access_log_on_connected
envoy.type.v3.HashPolicy: source_ip
envoy.type.v3.HashPolicy.SourceIp:
# TLS
envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer:
envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport: config transport_socket
envoy.config.core.v3.ProxyProtocolConfig: version
envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext: common_tls_context require_client_certificate require_sni ~disable_stateless_session_resumption ~disable_stateful_session_resumption ~session_timeout ~full_scan_certs_on_sni_mismatch ~prefer_client_ciphers ~ocsp_staple_policy
envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext: common_tls_context sni auto_sni_san_validation ~max_session_keys ~enforce_rsa_key_usage
envoy.extensions.transport_sockets.tls.v3.CommonTlsContext: tls_params tls_certificates tls_certificate_sds_secret_configs validation_context validation_context_sds_secret_config combined_validation_context alpn_protocols
envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext: default_validation_context validation_context_sds_secret_config
envoy.extensions.transport_sockets.tls.v3.TlsParameters: tls_minimum_protocol_version tls_maximum_protocol_version cipher_suites ecdh_curves
envoy.extensions.transport_sockets.tls.v3.TlsCertificate: certificate_chain private_key ~watched_directory
envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig: name sds_config
envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext: trusted_ca system_root_certs ~watched_directory verify_certificate_spki verify_certificate_hash match_typed_subject_alt_names match_subject_alt_names trust_chain_verification ~only_verify_leaf_cert_crl max_verify_depth ~suppress_client_ca_list
envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.SystemRootCerts:
envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher: san_type matcher
envoy.extensions.transport_sockets.tls.v3.Secret: name tls_certificate validation_context
envoy.config.core.v3.ConfigSource: api_config_source ads initial_fetch_timeout resource_api_version
envoy.config.core.v3.AggregatedConfigSource:
envoy.config.core.v3.ApiConfigSource: api_type ~transport_api_version grpc_services ~set_node_on_first_message_only ~request_timeout ~rate_limit_settings
envoy.config.core.v3.RateLimitSettings: ~max_tokens ~fill_rate
# clusters
envoy.config.cluster.v3.Cluster: transport_socket_matches name alt_stat_name type eds_cluster_config connect_timeout lb_policy load_assignment max_requests_per_connection circuit_breakers typed_extension_protocol_options dns_refresh_rate ~dns_failure_refresh_rate ~respect_dns_ttl ~dns_jitter dns_lookup_family ~typed_dns_resolver_config ~wait_for_warm_on_init outlier_detection ~cleanup_interval upstream_bind_config ring_hash_lb_config maglev_lb_config original_dst_lb_config least_request_lb_config round_robin_lb_config common_lb_config transport_socket metadata upstream_connection_options filters ~per_connection_buffer_limit_bytes ~ignore_health_on_host_removal ~track_timeout_budgets
envoy.config.cluster.v3.Cluster.TransportSocketMatch: name match transport_socket
envoy.config.cluster.v3.Cluster.EdsClusterConfig: eds_config service_name
envoy.config.cluster.v3.Cluster.RefreshRate: ~base_interval ~max_interval
envoy.config.cluster.v3.CircuitBreakers: thresholds
envoy.config.cluster.v3.CircuitBreakers.Thresholds: priority max_connections max_pending_requests max_requests max_retries retry_budget ~track_remaining ~max_connection_pools
envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget: budget_percent ~budget_interval min_retry_concurrency
envoy.config.cluster.v3.OutlierDetection: consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx ~enforcing_success_rate ~success_rate_minimum_hosts ~success_rate_request_volume ~success_rate_stdev_factor consecutive_gateway_failure enforcing_consecutive_gateway_failure split_external_local_origin_errors consecutive_local_origin_failure enforcing_consecutive_local_origin_failure ~enforcing_local_origin_success_rate max_ejection_time ~max_ejection_time_jitter ~enforcing_failure_percentage ~enforcing_failure_percentage_local_origin
envoy.config.core.v3.BindConfig: source_address
envoy.config.cluster.v3.Cluster.RingHashLbConfig: minimum_ring_size hash_function maximum_ring_size
envoy.config.cluster.v3.Cluster.MaglevLbConfig: table_size
envoy.config.cluster.v3.Cluster.OriginalDstLbConfig: upstream_port_override
envoy.config.cluster.v3.Cluster.LeastRequestLbConfig: choice_count slow_start_config
envoy.config.cluster.v3.Cluster.RoundRobinLbConfig: slow_start_config
envoy.config.cluster.v3.Cluster.SlowStartConfig: slow_start_window aggression min_weight_percent
envoy.config.cluster.v3.Cluster.CommonLbConfig: healthy_panic_threshold locality_weighted_lb_config ~update_merge_window ~override_host_status
envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig:
envoy.config.core.v3.HealthStatusSet: ~statuses
envoy.config.cluster.v3.UpstreamConnectionOptions: tcp_keepalive ~set_local_interface_name_on_upstream_connections
envoy.config.core.v3.TcpKeepalive: keepalive_probes keepalive_time keepalive_interval
envoy.config.cluster.v3.Filter: name typed_config
envoy.extensions.upstreams.http.v3.HttpProtocolOptions: common_http_protocol_options upstream_http_protocol_options explicit_http_config use_downstream_protocol_config
envoy.config.core.v3.UpstreamHttpProtocolOptions: auto_sni auto_san_validation
envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig: http_protocol_options http2_protocol_options
envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig: http_protocol_options http2_protocol_options
# endpoints
envoy.config.endpoint.v3.ClusterLoadAssignment: cluster_name endpoints policy
envoy.config.endpoint.v3.ClusterLoadAssignment.Policy: overprovisioning_factor
envoy.config.endpoint.v3.LocalityLbEndpoints: locality ~metadata lb_endpoints load_balancing_weight priority ~proximity
envoy.config.core.v3.Locality: region zone sub_zone
envoy.config.endpoint.v3.LbEndpoint: endpoint health_status metadata load_balancing_weight
envoy.config.endpoint.v3.Endpoint: address ~additional_addresses hostname ~health_check_config
envoy.config.endpoint.v3.Endpoint.AdditionalAddress: ~address
envoy.config.endpoint.v3.Endpoint.HealthCheckConfig: ~port_value ~hostname ~address ~disable_active_health_check
# wrappers
xds.type.v3.TypedStruct: type_url value
udpa.type.v1.TypedStruct: type_url value
`
