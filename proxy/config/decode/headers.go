// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/meltemi/meltemi/proxy/route"
)

// HeaderOps reads header operations.
func HeaderOps(add []*corev3.HeaderValueOption, remove []string) (route.HeaderOps, error) {
	ops, err := each(add, HeaderOp)
	return route.HeaderOps{Add: ops, Remove: remove}, err
}

// HeaderOp reads one HeaderValueOption.
func HeaderOp(m *corev3.HeaderValueOption) (route.HeaderOp, error) {
	h := m.GetHeader()
	op := route.HeaderOp{Name: h.GetKey(), Value: h.GetValue(), KeepEmpty: m.GetKeepEmptyValue()}
	if raw := h.GetRawValue(); len(raw) > 0 {
		if op.Value != "" {
			return op, fmt.Errorf("header %q has both value and raw_value", op.Name)
		}
		op.Value = string(raw)
	}
	switch a := m.GetAppendAction(); {
	case m.GetAppend() != nil: // the older spelling
		if !m.GetAppend().GetValue() {
			op.Action = route.OverwriteOrAdd
		}
		if a != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			return op, fmt.Errorf("header %q has both append and append_action", op.Name)
		}
	case a == corev3.HeaderValueOption_ADD_IF_ABSENT:
		op.Action = route.AddIfAbsent
	case a == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		op.Action = route.OverwriteOrAdd
	case a == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		op.Action = route.OverwriteExists
	}
	return op, nil
}
