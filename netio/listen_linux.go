// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package netio

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

func setOptions(fd uintptr, network string, opt SocketOptions) error {
	v6 := strings.HasSuffix(network, "6")
	set := func(name string, level, option, value int) error {
		err := unix.SetsockoptInt(int(fd), level, option, value)
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s needs CAP_NET_ADMIN: run as root or grant it: %w", name, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	var errs []error
	if opt.Mark != 0 {
		errs = append(errs, set("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(opt.Mark)))
	}
	if opt.ReusePort {
		errs = append(errs, set("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	if opt.Transparent {
		if v6 {
			errs = append(errs, set("IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1))
		} else {
			errs = append(errs, set("IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1))
		}
	}
	if opt.V6Only && v6 {
		errs = append(errs, set("IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1))
	}
	return errors.Join(errs...)
}
