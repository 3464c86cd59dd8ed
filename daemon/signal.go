// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"
)

// echo is how long after the first signal another is the same wish: a terminal that is closed signals its
// session's leader twice, and timeout(1) signals its command, then its command's group.
const echo = 100 * time.Millisecond

// Heed returns a context that ends with the first signal; the second calls insist, which is expected to
// end the process at once. stop ends the context and stops listening. The caller subscribes the channel.
func Heed(ctx context.Context, signals <-chan os.Signal, log *slog.Logger, insist func()) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		var asked time.Time
		for {
			select {
			case <-over:
				return
			case s, ok := <-signals:
				switch {
				case !ok:
					return
				case asked.IsZero():
					asked = time.Now()
					log.Info("stopping; once more stops at once", "signal", s.String())
					cancel()
				case time.Since(asked) >= echo:
					insist()
					return
				}
			}
		}
	}()
	return ctx, sync.OnceFunc(func() {
		cancel()
		close(over)
	})
}
