// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/meltemi/meltemi/netio"
)

// An Admin is an HTTP server for operators: small, slow clients cut off, with an index of what there is.
//
// Pages in a browser must not reach it: on loopback, requests whose Host is a name other than localhost are
// refused (DNS rebinding), and so are, everywhere, changes that another site's page asks for. What
// changes the program is POST only.
type Admin struct {
	Addr   netip.AddrPort
	Socket netio.SocketOptions
	Log    *slog.Logger
	// Listener, if set, is served instead of Addr.
	Listener net.Listener

	mux   http.ServeMux
	pages []page
}

type page struct{ method, path, help string }

// Handle adds a page. method is GET or POST. help is its line in the index; without it the page is not listed.
func (a *Admin) Handle(method, path, help string, h http.Handler) {
	a.mux.Handle(method+" "+path, h)
	if help != "" {
		a.pages = append(a.pages, page{method, path, help})
	}
}

// Handler returns the whole server as a handler: guard, index and pages. Pages are not added any more afterwards.
func (a *Admin) Handler() http.Handler {
	var guarded http.ServeMux
	guarded.Handle("/", &a.mux)
	guarded.HandleFunc("GET /{$}", a.index)
	crossOrigin := http.NewCrossOriginProtection()
	return crossOrigin.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if netio.AddrPortOf(local).Addr().IsLoopback() && !numericHost(r.Host) {
			http.Error(w, "refused: ask for this by address or as localhost, not by a name", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		guarded.ServeHTTP(w, r)
	}))
}

// numericHost reports whether host, with or without port, is an address or localhost.
func numericHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

func (a *Admin) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	var b strings.Builder
	b.WriteString("<!doctype html><title>admin</title><style>body{font:15px system-ui;margin:2em}td{padding:.2em 1em}</style><table>")
	for _, p := range a.pages {
		path := html.EscapeString(p.path)
		if p.method == http.MethodGet {
			path = "<a href=\"" + path + "\">" + path + "</a>"
		} else {
			path = "<form method=post action=\"" + path + "\"><button>" + path + "</button></form>"
		}
		_, _ = fmt.Fprintf(&b, "<tr><td>%s</td><td>%s</td></tr>", path, html.EscapeString(p.help))
	}
	b.WriteString("</table>")
	_, _ = w.Write([]byte(b.String()))
}

// Run serves until ctx ends, then lets requests under way finish for a second.
func (a *Admin) Run(ctx context.Context) error {
	l := a.Listener
	if l == nil {
		var err error
		if l, err = netio.Listen(ctx, a.Addr, a.Socket); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	srv := &http.Server{
		Handler:           a.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	if a.Log != nil {
		srv.ErrorLog = slog.NewLogLogger(a.Log.Handler(), slog.LevelDebug)
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-stopped
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
