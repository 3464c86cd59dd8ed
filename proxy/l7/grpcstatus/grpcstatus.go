// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package grpcstatus translates between gRPC's status and HTTP's, as Envoy does.
package grpcstatus

import "strings"

// DeadlineExceeded is what a call is told whose own deadline has passed.
const DeadlineExceeded = 4

// Of is the gRPC status that an HTTP status of ours stands for
// (Envoy: Grpc::Utility::httpToGrpcStatus).
func Of(status int) int {
	switch status {
	case 200:
		return 0
	case 400:
		return 13
	case 401:
		return 16
	case 403:
		return 7
	case 404:
		return 12
	case 429, 502, 503, 504:
		return 14
	}
	return 2
}

// Message is s as grpc-message has it: percent-encoded.
func Message(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// HTTP is the HTTP status that a gRPC status stands for, as outlier
// detection counts (Envoy: Grpc::Utility::grpcToHttpStatus).
func HTTP(status string) int {
	switch status {
	case "0":
		return 200
	case "1":
		return 499
	case "3", "9", "11":
		return 400
	case "4":
		return 504
	case "5":
		return 404
	case "6", "10":
		return 409
	case "7":
		return 403
	case "8":
		return 429
	case "12":
		return 501
	case "14":
		return 503
	case "16":
		return 401
	}
	return 500
}
