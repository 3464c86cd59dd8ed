// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

// Package bookshop is the sample application: a page about a book, made by four services. It has the shape of
// Istio's Bookinfo (the same service names, versions, ports, paths, JSON and timeouts), so that what is
// written for that works here.
//
//	bookshop.go     Config, Handler, Run: one entry for all services
//	productpage.go  the page; calls details and reviews
//	details.go      facts about the book
//	reviews.go      what people say; v2 and v3 call ratings for black and red stars
//	ratings.go      how many stars
//	call.go         one service calling another, passing trace headers on as good citizens do
//	workloads.go    the workloads and the configuration it starts with
//
// Every answer names, in Bookshop-Hop headers, the services that took part in it and the identity each saw of
// its caller, so that the page can show which version answered and whether the way was mutual TLS.
package bookshop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/meltemi/meltemi/netio"
)

// The services.
const (
	ProductPage = "productpage"
	Details     = "details"
	Reviews     = "reviews"
	Ratings     = "ratings"
)

// Port is where each service listens, in every namespace of its own.
const Port = 9080

// Config is what a service needs. Start from Defaults.
type Config struct {
	Listen   netip.AddrPort
	Instance string // pod name, shown in answers
	Cluster  string // cluster name, shown by reviews

	// Base URLs of the services that are called.
	Details, Reviews, Ratings string
	// Proxy, if set, is the HTTP proxy that all calls go through.
	Proxy *url.URL

	DetailsTimeout time.Duration // productpage to details
	ReviewsTimeout time.Duration // productpage to reviews, for each of two attempts
	BlackTimeout   time.Duration // reviews v2 to ratings
	RedTimeout     time.Duration // reviews v3 to ratings

	Log *slog.Logger
}

// Defaults is a service in a mesh: peers by their short names, Bookinfo's timeouts.
func Defaults() Config {
	return Config{
		Listen:         netip.AddrPortFrom(netip.IPv6Unspecified(), Port),
		Details:        "http://details:9080",
		Reviews:        "http://reviews:9080",
		Ratings:        "http://ratings:9080",
		DetailsTimeout: 3 * time.Second,
		ReviewsTimeout: 3 * time.Second,
		// Longer than what productpage waits for both attempts: the mistake that a delay of
		// seven seconds in ratings brings to light.
		BlackTimeout: 10 * time.Second,
		RedTimeout:   2500 * time.Millisecond,
		Log:          slog.New(slog.DiscardHandler),
	}
}

// service is what every service has.
type service struct {
	Config
	name, version string
	client        *http.Client
	results       results
}

// Handler returns a service: one of the names above, with its version (v1; reviews also v2 and v3).
func Handler(name, version string, cfg Config) (http.Handler, error) {
	for what, base := range map[string]string{Details: cfg.Details, Reviews: cfg.Reviews, Ratings: cfg.Ratings} {
		if u, err := url.Parse(base); err != nil || u.Host == "" {
			return nil, fmt.Errorf("bookshop: base URL of %s: %q is not like http://host:port", what, base)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Instance == "" {
		cfg.Instance = name + "-" + version
	}
	s := &service{Config: cfg, name: name, version: version, client: newClient(cfg.Proxy)}
	mux := http.NewServeMux()
	switch name + " " + version {
	case ProductPage + " v1":
		s.productPage(mux)
	case Details + " v1":
		s.details(mux)
	case Reviews + " v1", Reviews + " v2", Reviews + " v3":
		s.reviews(mux)
	case Ratings + " v1":
		s.ratings(mux)
	default:
		return nil, fmt.Errorf("bookshop: there is no %s %s; there are productpage v1, details v1, reviews v1 v2 v3 and ratings v1", name, version)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add(hopHeader, hop{s.name, s.version, s.Instance, peerOf(r)}.String())
		mux.ServeHTTP(w, r)
	}), nil
}

// Run serves a service until ctx ends, then finishes what is under way.
func Run(ctx context.Context, name, version string, cfg Config) error {
	h, err := Handler(name, version, cfg)
	if err != nil {
		return err
	}
	l, err := netio.Listen(ctx, cfg.Listen, netio.SocketOptions{})
	if err != nil {
		return fmt.Errorf("bookshop: %s: %w", name, err)
	}
	return Serve(ctx, l, h)
}

// Serve serves h on l until ctx ends, then finishes what is under way.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           http.MaxBytesHandler(h, 1<<20),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("bookshop: %w", err)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// failure is the body of answers that are none.
type failure struct {
	Error string `json:"error"`
}

func healthy(what string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": what + " is healthy"})
	}
}
