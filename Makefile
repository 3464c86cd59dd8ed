# Copyright The Meltemi Authors
# SPDX-License-Identifier: Apache-2.0

GO       ?= go
CACHE    := $(CURDIR)/.cache
LINT     := $(CACHE)/bin/golangci-lint
LINT_VER := v2.15.0
FUZZTIME ?= 10s
# gRPC's trace pages bring html/template, which keeps every method of every type in
# the program: 8 MB of the proxy, 5 MB of its memory.
TAGS     := grpcnotrace

.PHONY: build check fmt vet lint layers test race e2e bench fuzz gen clean

build: ## the programs, static, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -o bin/ ./cmd/...

check: fmt vet layers ## everything that needs no running program but the linters

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v /testdata/)); \
	if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet ./...

layers: ## imports, package comments, names
	$(GO) test .

lint: $(LINT)
	$(LINT) run ./...

$(LINT):
	GOBIN=$(CACHE)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VER)

test: ## all tests but those of whole meshes with real peers
	$(GO) test $$($(GO) list ./... | grep -v /test/)

race: ## unit tests of what runs concurrently, under the race detector
	$(GO) test -race ./derive/... ./http2/... ./xds/... ./proxy/... ./control/push/... ./certs/...

e2e: build ## suites with real peers: Envoy, nginx, h2spec, gRPC's interop; they skip, saying so, where a peer is missing
	$(GO) test -count=1 -p 1 -timeout 40m ./test/...

bench: build ## side by side with nginx and Envoy
	$(GO) run ./bench

# The time for making an input smaller is not part of FUZZTIME: by default a minute for each.
fuzz: ## every fuzz target for FUZZTIME
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
	  done; done

gen: ## generated code
	sh wire/gen.sh

clean:
	rm -rf bin .cache
