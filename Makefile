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
CI_REQUIRE := root,vxlan,tun,bpf,iptables,tshark,bird,ping,curl,iperf3,openssl,chromium,playwright,nft,conntrack,iptables-legacy,iptables-nft,flanneld,nginx,haproxy,keepalived,kube-proxy,kubernetes,containerd,conformance,kubeadm,cgroups,sshd,nspawn,rpm

.PHONY: all deps deps-labs deps-components build demo test test-unit test-root test-day-two test-vms ui ui-deps bench bench-peers components components-all conformance lint generate clean

all: build

deps: ## install the Debian packages for everything, tests too, and the Go toolchain
	hack/deps.sh tests

deps-labs: ## only what building and labs need
	hack/deps.sh labs

deps-components: ## what real components need, too
	hack/deps.sh components

build: deps-labs ## build bin/slipway
	$(GO) build -trimpath -ldflags '-s -w -X main.release=$(VERSION)' -o bin/slipway ./cmd/slipway

demo: build ## run the main job: five modes, traced and measured
	$(SUDO) bin/slipway demo

# Begun first: last, they would run alone for minutes.
LONGEST := ./e2e/hosts ./lab/scenario

test: deps ui-deps $(if $(CI),components-all) ## every test; those that need root run as root
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" LAB_REQUIRE="$(if $(CI),$(CI_REQUIRE),$(LAB_REQUIRE))" $(GO) test -count=1 -p 3 -timeout 35m $(LONGEST) ./...

ui-deps: ## what tests the page, into ui/e2e/node_modules
	@[ ui/e2e/node_modules/.package-lock.json -nt ui/e2e/package-lock.json ] || npm ci --prefix ui/e2e --no-audit --no-fund --ignore-scripts

ui: ## build the page into lab/ui/dist, which is committed (needs Node.js 20.19 or newer)
	npm install --prefix ui --no-audit --no-fund --ignore-scripts
	npm run --prefix ui build

test-unit: deps-labs ## the tests that need no privilege, in seconds
	$(GO) test -count=1 -short ./topology/... ./datapath ./datapath/flannel ./datapath/calico ./datapath/kubeproxy ./lab/traceview ./internal/archtest ./lab/journal

test-root: deps ## the tests on the real kernel only
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" LAB_REQUIRE="$(CI_REQUIRE)" $(GO) test -count=1 -timeout 25m ./datapath/... ./lab/... ./cmd/... ./e2e/...

test-day-two: deps components ## installation and all of day two over SSH, on machines that share the kernel
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" LAB_REQUIRE="root,nspawn,kubernetes,daytwo" $(GO) test -count=1 -timeout 60m -v -run '^(TestInstall|TestBalancersBySSH)$$' ./e2e/hosts

test-vms: deps ## machines with a stock kernel of their own, by QEMU; takes the better part of an hour where KVM is missing
	hack/deps-vms.sh
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" LAB_REQUIRE="root,tun,vms" $(GO) test -count=1 -timeout 3h -v ./e2e/vms

bench: build ## scale and speed with the machine's facts; takes about fifteen minutes
	$(SUDO) bin/slipway bench scale --big

bench-peers: build ## others' programs beside ours: builds them first
	hack/deps-peers.sh
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" SLIPWAY_GO="$(GO)" bin/slipway bench peers

components: deps-components build ## build the programs that labs with real components run, into the cache
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" SLIPWAY_GO="$(GO)" bin/slipway components build

components-all: deps-components build ## those and what only tests run
	$(SUDO) env PATH="$$PATH" HOME="$$HOME" SLIPWAY_GO="$(GO)" bin/slipway components build --all

conformance: build ## Kubernetes' own network tests against full labs, in four modes
	hack/conformance.sh all

lint: deps ## few linters, all enforced
	hack/lint.sh

generate: deps ## compile the eBPF programs again (needs clang)
	$(GO) generate ./datapath/bpf ./datapath/skbtrace

clean:
	rm -rf bin
