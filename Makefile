# Two commands matter to a new user: make run, make test. CONTRIBUTING.md has the rest.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
# How long a soak runs each of its parts.
SOAK    ?= 10m

export GOTOOLCHAIN ?= local
export GOFLAGS     ?= -mod=readonly

.PHONY: run build test check lint soak bench clean

run: ## a demo edge on https://localhost:8443
	$(GO) run ./cmd/tidegate demo

build: ## bin/tidegate
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/tidegate ./cmd/tidegate

test: ## every test, with the race detector; builds or installs what they need
	test/run.sh -race ./...
# The detector keeps memory of its own, so that only a run without it shows what a
# thousand reloads or a day of sessions leave behind, and what stopped or slow readers,
# bombs and silent sessions cost; and two thousand clients of a deploy are too many for it.
	test/run.sh -run '^(TestReloads|TestDay|TestStoppedReaders|TestSlowConsumers|TestRollingDeploy|TestScaleOut|TestBombs?|TestBombsWait|TestDeflateMemory.*)$$' ./test

lint: ## format, vet, static analysis, dependencies and other systems
	test/lint.sh

check: lint test ## what CI runs

soak: ## the long runs: each fuzz target and each endurance test for $(SOAK)
	test/soak.sh $(SOAK)

# What `make bench` is told, such as BENCH='-quick' or BENCH='-only echo -rounds 3'.
BENCH ?= -out docs/benchmarks.md

bench: ## Tidegate, HAProxy, nginx, Caddy and no proxy side by side, about 70 minutes
	$(GO) build -o bin/bench ./bench
	bin/bench $(BENCH)

clean:
	rm -rf bin .cache test/npm/node_modules
