// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package bookshop

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"
)

//go:embed page.html
var pageHTML string

const (
	sessionCookie = "session"
	maxUser       = 64
)

// product is the JSON of a product.
type product struct {
	ID          int    `json:"id"`
	Title       string `json:"title"`
	Description string `json:"descriptionHtml"`
}

var products = []product{{
	ID:    0,
	Title: "The Comedy of Errors",
	Description: "A merchant of Syracuse loses one twin son and one twin servant in a shipwreck. Years later the others " +
		"come to Ephesus, where the lost ones live, and in a single day wives, debts and a gold chain end up with the wrong man.",
}}

func (s *service) productPage(mux *http.ServeMux) {
	page := template.Must(template.New("page").Funcs(template.FuncMap{"stars": stars}).Parse(pageHTML))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/productpage", http.StatusFound) })
	mux.HandleFunc("GET /index.html", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/productpage", http.StatusFound)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "Product page is healthy")
	})
	mux.HandleFunc("GET /productpage", func(w http.ResponseWriter, r *http.Request) { s.servePage(w, r, page) })
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /logout", s.logout)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /api/v1/products", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, products) })
	mux.HandleFunc("GET /api/v1/products/{id}", s.api(s.fetchDetails))
	mux.HandleFunc("GET /api/v1/products/{id}/reviews", s.api(s.fetchReviews))
	mux.HandleFunc("GET /api/v1/products/{id}/ratings", s.api(s.fetchRatings))
}

// fetch asks a service about a product. A failure has its status and is one for people to read.
type fetch func(r *http.Request, id int) (answer, *failure)

// api hands another service's answer on.
func (s *service) api(f fetch) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, ok := productID(w, r)
		if !ok {
			return
		}
		a, fail := f(r, id)
		forwardHops(w, a.hops)
		if fail != nil {
			writeJSON(w, a.status, fail)
			return
		}
		writeJSON(w, a.status, json.RawMessage(a.body))
	}
}

func (s *service) fetchDetails(r *http.Request, id int) (answer, *failure) {
	return s.fetch(r, Details, s.Details, id, s.DetailsTimeout)
}

// fetchReviews tries twice.
func (s *service) fetchReviews(r *http.Request, id int) (answer, *failure) {
	a, fail := s.fetch(r, Reviews, s.Reviews, id, s.ReviewsTimeout)
	if fail != nil && r.Context().Err() == nil {
		a, fail = s.fetch(r, Reviews, s.Reviews, id, s.ReviewsTimeout)
	}
	return a, fail
}

func (s *service) fetchRatings(r *http.Request, id int) (answer, *failure) {
	return s.fetch(r, Ratings, s.Ratings, id, s.DetailsTimeout)
}

func (s *service) fetch(r *http.Request, target, base string, id int, timeout time.Duration) (answer, *failure) {
	a, err := s.call(r, target, base, fmt.Sprintf("/%s/%d", target, id), userOf(r), timeout)
	if err == nil && a.status == http.StatusOK && json.Valid(a.body) {
		return a, nil
	}
	if a.status == 0 || a.status == http.StatusOK {
		a.status = http.StatusInternalServerError
	}
	return a, &failure{"Sorry, product " + target + " are currently unavailable for this book."}
}

// view is what the page shows.
type view struct {
	Product      product
	User         string
	Details      *bookDetails
	DetailsError string
	Reviews      *bookReviews
	ReviewsError string
	Hops         []hopView
	ReviewsBy    string // version that answered
}

type hopView struct {
	Service, Version, Instance, Peer string
}

func (s *service) servePage(w http.ResponseWriter, r *http.Request, page *template.Template) {
	v := view{Product: products[0], User: userOf(r)}
	v.addHop(hop{s.name, s.version, s.Instance, peerOf(r)})

	a, fail := s.fetchDetails(r, v.Product.ID)
	v.addHop(a.hops...)
	if fail == nil && json.Unmarshal(a.body, &v.Details) != nil {
		fail = &failure{"Sorry, product details came back unreadable."}
	}
	if fail != nil {
		v.Details, v.DetailsError = nil, fail.Error
	}
	detailsHops := a.hops

	a, fail = s.fetchReviews(r, v.Product.ID)
	v.addHop(a.hops...)
	if fail == nil && json.Unmarshal(a.body, &v.Reviews) != nil {
		fail = &failure{"Sorry, product reviews came back unreadable."}
	}
	if fail != nil {
		v.Reviews, v.ReviewsError = nil, fail.Error
	}
	for _, h := range a.hops {
		if h.service == Reviews {
			v.ReviewsBy = h.version
		}
	}
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	forwardHops(w, detailsHops)
	forwardHops(w, a.hops)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'")
	_, _ = w.Write(b.Bytes())
}

func (v *view) addHop(hops ...hop) {
	for _, h := range hops {
		v.Hops = append(v.Hops, hopView{h.service, h.version, h.instance, h.peer})
	}
}

// stars draws n of five.
func stars(n int) string {
	n = min(max(n, 0), 5)
	return strings.Repeat("★", n) + strings.Repeat("☆", 5-n)
}

// login takes any name without a password: it exists to show routing by user.
func (s *service) login(w http.ResponseWriter, r *http.Request) {
	user := cleanUser(r.PostFormValue("username"))
	if user != "" {
		http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: url.QueryEscape(user), Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	http.Redirect(w, r, "/productpage", http.StatusFound)
}

func (s *service) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, HttpOnly: true})
	http.Redirect(w, r, "/productpage", http.StatusFound)
}

// userOf returns who is signed in.
func userOf(r *http.Request) string {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	user, err := url.QueryUnescape(c.Value)
	if err != nil {
		return ""
	}
	return cleanUser(user)
}

// cleanUser keeps what may stand in a header.
func cleanUser(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e {
			return -1
		}
		return c
	}, s)
	return strings.TrimSpace(s[:min(len(s), maxUser)])
}

// metrics writes how calls ended, in Prometheus' text format and under Bookinfo's name.
func (s *service) metrics(w http.ResponseWriter, _ *http.Request) {
	s.results.mu.Lock()
	lines := make([]string, 0, len(s.results.by))
	for k, n := range s.results.by {
		lines = append(lines, fmt.Sprintf("request_result_total{destination_app=%q,response_code=%q} %d\n", k[0], k[1], n))
	}
	s.results.mu.Unlock()
	sort.Strings(lines)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = fmt.Fprintf(w, "# HELP request_result_total Calls to other services by how they ended, 0 without an answer.\n# TYPE request_result_total counter\n%s", strings.Join(lines, ""))
}
