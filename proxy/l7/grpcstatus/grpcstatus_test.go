// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package grpcstatus

import (
	"strconv"
	"testing"
)

func TestThereAndBack(t *testing.T) {
	for status, want := range map[int]int{200: 0, 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14, 418: 2, 500: 2} {
		if got := Of(status); got != want {
			t.Errorf("HTTP %d is gRPC %d, want %d", status, got, want)
		}
	}
	for code := range 17 {
		if s := HTTP(strconv.Itoa(code)); (s == 200) != (code == 0) {
			t.Errorf("gRPC %d is HTTP %d", code, s)
		}
	}
	if HTTP("14") != 503 || HTTP("99") != 500 || HTTP("") != 500 {
		t.Error("unavailable is 503, what is not known 500")
	}
}

func TestMessage(t *testing.T) {
	if got := Message("100% of\n\u00e9"); got != "100%25 of%0A%C3%A9" {
		t.Errorf("got %q", got)
	}
}
