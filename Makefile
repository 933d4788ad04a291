# The targets are the steps of CI: `.ci/run` calls `make test` and nothing else.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Arguments of the demo, such as `make demo ARGS=--keep`.
ARGS ?=

bindir = $(PREFIX)/bin
unitdir = $(PREFIX)/lib/systemd/system
sysusersdir = $(PREFIX)/lib/sysusers.d
docdir = $(PREFIX)/share/doc/rollbackd
target = $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test deps fmt-check clippy docs scripts systemd-units tests fuzz soak bench-decisions build install clean
.NOTPARALLEL:

help:
	@echo 'make demo     the whole story on this machine, in a throwaway PostgreSQL (ARGS=--keep, ARGS=--healthy)'
	@echo 'make test     everything that CI checks'
	@echo 'make fuzz     text from outside, made worse at random, for long and with 4 GB of memory (CASES=)'
	@echo 'make soak     window after window with failing parts, and what the daemon needs of the machine (MINUTES=, SEED=)'
	@echo 'make bench-decisions  false rollbacks, missed faults and delays of the shipped rules (RUNS=, SEED=)'
	@echo 'make build    the release executable, $(target)/release/rollbackd'
	@echo 'make install  executable, systemd unit and examples, below $(DESTDIR)$(PREFIX) (PREFIX=, DESTDIR=)'
	@echo 'make clean    removes what was built'

# The development profile: it is built sooner, and the demo does not wait for the CPU.
demo:
	@tools/install-deps demo
	@echo 'building rollbackd (the first time takes some minutes)'
	@$(CARGO) build --quiet --locked --bin rollbackd
	@$(CARGO) run --quiet --locked --bin rollbackd -- demo $(ARGS)

test: deps fmt-check clippy docs scripts systemd-units tests
	@echo
	@echo 'make test: everything passed (format, clippy, documentation, scripts, systemd units, tests)'

deps:
	@tools/install-deps test

fmt-check:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --quiet --workspace --all-targets --locked -- -D warnings

docs:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --workspace --no-deps --document-private-items --locked

scripts:
	shellcheck tools/* .ci/run config/demo/*.sh config/scripts/*.sh

# Needs systemd's programs, and none that runs.
systemd-units:
	@tools/check-units

tests:
	$(CARGO) test --quiet --workspace --locked

# More memory than that is a mistake. `make test` tries 256 cases of each.
CASES ?= 20000
fuzz:
	$(CARGO) test --lib --locked --no-run
	PROPTEST_CASES=$(CASES) prlimit --as=4000000000 $(CARGO) test --lib --locked -- fuzz::

# Half an hour is some hundred windows. `SEED=` runs the same faults again.
MINUTES ?= 30
soak:
	SOAK_MINUTES=$(MINUTES) SOAK_SEED=$(SEED) $(CARGO) test --quiet --test suite --locked -- --ignored --nocapture soak::

bench-decisions:
	$(CARGO) bench --quiet --locked --bench decisions

build:
	$(CARGO) build --release --locked

# Copies only, so that `sudo make install` does not need Rust: run `make build` first.
install:
	@test -x $(target)/release/rollbackd || { echo 'run `make build` first'; exit 1; }
	install -D -m 0755 $(target)/release/rollbackd $(DESTDIR)$(bindir)/rollbackd
	install -d $(DESTDIR)$(unitdir)
	sed 's|/usr/bin/rollbackd|$(bindir)/rollbackd|' systemd/rollbackd@.service > $(DESTDIR)$(unitdir)/rollbackd@.service
	chmod 0644 $(DESTDIR)$(unitdir)/rollbackd@.service
	install -D -m 0644 systemd/rollbackd.sysusers.conf $(DESTDIR)$(sysusersdir)/rollbackd.conf
	install -D -m 0644 config/rollbackd.toml $(DESTDIR)$(docdir)/rollbackd.toml
	install -D -m 0644 config/demo.toml $(DESTDIR)$(docdir)/demo.toml
	install -D -m 0644 -t $(DESTDIR)$(docdir)/examples config/examples/*.toml
	install -D -m 0644 -t $(DESTDIR)$(docdir)/examples/rollback-emergency config/examples/rollback-emergency/*.*
	install -D -m 0644 -t $(DESTDIR)$(docdir)/examples/run-unit systemd/rollbackd-run@.service systemd/rollbackd-run.rules
	install -D -m 0755 -t $(DESTDIR)$(docdir)/examples/run-unit config/scripts/run-unit.sh

clean:
	$(CARGO) clean
