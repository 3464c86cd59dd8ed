// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package upstream

import "sync/atomic"

// Stats counts what happens in a cluster, under Envoy's names. It lives with the
// Ref, so counters survive a change of the cluster's Spec.
type Stats struct {
	RequestTotal, RequestActive         atomic.Int64    // upstream_rq_total, _active
	RequestPending, RequestPendingTotal atomic.Int64    // upstream_rq_pending_active, _total
	RequestOverflow                     atomic.Int64    // upstream_rq_pending_overflow
	Retry, RetryActive, RetryOverflow   atomic.Int64    // upstream_rq_retry, …, upstream_rq_retry_overflow
	Codes                               [6]atomic.Int64 // by class: [2] is upstream_rq_2xx; [0] none
	ConnTotal, ConnActive               atomic.Int64    // upstream_cx_total, _active
	ConnHTTP1Total, ConnHTTP2Total      atomic.Int64
	ConnectFail, ConnectTimeout         atomic.Int64 // upstream_cx_connect_fail, _timeout
	ConnOverflow                        atomic.Int64 // upstream_cx_overflow
	ConnIdleRetired                     atomic.Int64 // upstream_cx_idle_timeout
	ConnLearnedRetired                  atomic.Int64 // meltemi_upstream_cx_retired_before_close
	ConnAgeRetired                      atomic.Int64 // upstream_cx_max_duration_reached
	ConnRemoteClosed                    atomic.Int64 // upstream_cx_destroy_remote
	SSLHandshake, SSLFail               atomic.Int64 // ssl.handshake, ssl.connection_error
	// BytesIn and BytesOut are of connections, inside TLS: of HTTP/1 and TCP when
	// an exchange or a connection ends, of HTTP/2 within about a second.
	BytesIn, BytesOut               atomic.Int64 // upstream_cx_rx_bytes_total, _tx_
	NoneHealthy                     atomic.Int64 // upstream_cx_none_healthy
	Panic                           atomic.Int64 // lb_healthy_panic
	EjectionsActive, EjectionsTotal atomic.Int64 // outlier_detection.ejections_active, _enforced_total
	EjectionsOverflow               atomic.Int64
	UpdateSuccess                   atomic.Int64 // membership updates
}

// HostStats counts what happens at one endpoint, as /clusters prints it.
type HostStats struct {
	ConnTotal, ConnActive, ConnectFail     atomic.Int64 // cx_total, cx_active, cx_connect_fail
	Total, Active, Success, Error, Timeout atomic.Int64 // rq_*
}
