# Everything a fresh Debian or Ubuntu machine needs comes from here:
#   make demo   sets the machine up, builds, and runs the main job
#   make test   sets the machine up and passes every test

SHELL := /bin/bash
GO ?= $(shell hack/go-path.sh)
export CGO_ENABLED := 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What this project's CI machine must be able to do: a test that would skip for
# one of these fails there instead.
CI_REQUIRE := root,vxlan,tun,bpf,iptables,tshark,bird,ping,curl,iperf3,openssl,chromium,nft,conntrack,iptables-legacy,iptables-nft,flanneld

.PHONY: all deps build demo test test-unit test-root bench bench-peers components lint generate clean

all: build

deps: ## install the Debian packages and the Go toolchain
	hack/deps.sh

build: deps ## build bin/slipway
	$(GO) build -trimpath -ldflags '-s -w -X main.release=$(VERSION)' -o bin/slipway ./cmd/slipway

demo: build ## run the main job: five modes, traced and measured
	$(SUDO) bin/slipway demo

test: deps ## every test; those that need root run as root
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" LAB_REQUIRE="$(if $(CI),$(CI_REQUIRE),$(LAB_REQUIRE))" $(GO) test -count=1 -timeout 25m ./...

test-unit: deps ## the tests that need no privilege, in seconds
	$(GO) test -count=1 -short ./topology/... ./datapath ./datapath/flannel ./datapath/calico ./datapath/kubeproxy ./lab/traceview ./internal/archtest ./lab/journal

test-root: deps ## the tests on the real kernel only
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" LAB_REQUIRE="$(CI_REQUIRE)" $(GO) test -count=1 -timeout 25m ./datapath/... ./lab/... ./cmd/... ./e2e/...

bench: build ## scale and speed with the machine's facts; takes about fifteen minutes
	$(SUDO) bin/slipway bench scale --big

bench-peers: build ## others' programs beside ours: builds them first
	hack/deps-peers.sh
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" SLIPWAY_GO="$(GO)" bin/slipway bench peers

components: build ## build the upstream programs that labs can run, into the cache
	SLIPWAY_GO="$(GO)" bin/slipway components build

lint: deps ## few linters, all enforced
	hack/lint.sh

generate: deps ## compile the eBPF programs again (needs clang)
	$(GO) generate ./datapath/bpf ./datapath/skbtrace

clean:
	rm -rf bin
