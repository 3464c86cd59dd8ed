// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"os"
	"sync"
)

// Heed returns a context that ends with the first signal; the second calls insist, which is expected to
// end the process at once. stop ends the context and stops listening. The caller subscribes the channel.
func Heed(ctx context.Context, signals <-chan os.Signal, log *slog.Logger, insist func()) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		for asked := false; ; asked = true {
			select {
			case <-over:
				return
			case s, ok := <-signals:
				switch {
				case !ok:
					return
				case asked:
					insist()
					return
				}
				log.Info("stopping; once more stops at once", "signal", s.String())
				cancel()
			}
		}
	}()
	return ctx, sync.OnceFunc(func() {
		cancel()
		close(over)
	})
}
