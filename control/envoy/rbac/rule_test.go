// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package rbac

import (
	"testing"

	"github.com/meltemi/meltemi/control/intent"
)

// Every attribute that the front end lets through must be asked about: one that
// is dropped would make a policy say something else than its author wrote.
func TestEveryAttributeIsAskedAbout(t *testing.T) {
	for _, key := range []string{
		"source.ip", "remote.ip", "source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain",
		"destination.ip", "destination.port", "connection.sni", "request.headers[x-a]",
		"request.auth.principal", "request.auth.audiences", "request.auth.presenter", "request.auth.claims[a][b]",
	} {
		b := &builder{http: true}
		permissions, principals := b.when(&intent.Condition{Key: key, Values: []string{"10.0.0.1"}})
		if b.dropped || len(permissions)+len(principals) != 1 {
			t.Errorf("%s: dropped %v, %d permissions, %d principals", key, b.dropped, len(permissions), len(principals))
		}
	}
}
