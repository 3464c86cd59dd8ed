// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package bookshop

import (
	"encoding/json"
	"net/http"
	"sync"
)

const (
	maxRated   = 1000 // products with ratings of their own
	maxRatings = 100  // ratings of one product
)

// bookRatings is the JSON of ratings.
type bookRatings struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

func (s *service) ratings(mux *http.ServeMux) {
	var mu sync.Mutex
	own := map[int]map[string]int{} // what was posted
	mux.HandleFunc("GET /health", healthy("Ratings"))
	mux.HandleFunc("GET /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := productID(w, r)
		if !ok {
			return
		}
		mu.Lock()
		stars := own[id]
		mu.Unlock()
		if stars == nil {
			stars = map[string]int{"Reviewer1": 5, "Reviewer2": 4}
		}
		writeJSON(w, http.StatusOK, bookRatings{id, stars})
	})
	mux.HandleFunc("POST /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := productID(w, r)
		if !ok {
			return
		}
		var stars map[string]int
		if err := json.NewDecoder(r.Body).Decode(&stars); err != nil || len(stars) > maxRatings {
			writeJSON(w, http.StatusBadRequest, failure{"please provide valid ratings JSON"})
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if _, known := own[id]; !known && len(own) >= maxRated {
			writeJSON(w, http.StatusInsufficientStorage, failure{"no room for ratings of more products"})
			return
		}
		own[id] = stars
		writeJSON(w, http.StatusOK, bookRatings{id, stars})
	})
}
