// Copyright The Meltemi Authors
// SPDX-License-Identifier: Apache-2.0

package bookshop

import (
	"fmt"
	"net/http"
	"time"
)

// bookReviews is the JSON of reviews.
type bookReviews struct {
	ID      string   `json:"id"`
	Pod     string   `json:"podname"`
	Cluster string   `json:"clustername"`
	Reviews []review `json:"reviews"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"`
}

// rating is stars, or why there are none.
type rating struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

func (s *service) reviews(mux *http.ServeMux) {
	mux.HandleFunc("GET /health", healthy("Reviews"))
	mux.HandleFunc("GET /reviews/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := productID(w, r)
		if !ok {
			return
		}
		reviews := []review{
			{Reviewer: "Reviewer1", Text: "Two pairs of twins, one town, and nobody thinks to ask a second question. I laughed on every page."},
			{Reviewer: "Reviewer2", Text: "Short, quick and silly in the best way. Next to the later plays it is light fare, and none the worse for it."},
		}
		switch s.version {
		case "v2":
			s.addStars(w, r, id, reviews, "black", s.BlackTimeout)
		case "v3":
			s.addStars(w, r, id, reviews, "red", s.RedTimeout)
		}
		cluster := s.Cluster
		if cluster == "" {
			cluster = "null"
		}
		writeJSON(w, http.StatusOK, bookReviews{fmt.Sprint(id), s.Instance, cluster, reviews})
	})
}

// addStars asks ratings; without an answer every review says so, and the reviews are served all the same.
func (s *service) addStars(w http.ResponseWriter, r *http.Request, id int, reviews []review, color string, timeout time.Duration) {
	var stars bookRatings
	a, err := s.call(r, Ratings, s.Ratings, fmt.Sprintf("/ratings/%d", id), "", timeout)
	forwardHops(w, a.hops)
	if err == nil {
		err = a.decode(&stars)
	}
	for i := range reviews {
		n, rated := stars.Ratings[reviews[i].Reviewer]
		switch {
		case err != nil:
			reviews[i].Rating = &rating{Error: "Ratings service is currently unavailable"}
		case rated:
			reviews[i].Rating = &rating{Stars: n, Color: color}
		}
	}
}
