# coordd: one Makefile for everything. `make help` lists the targets.
#
#	make [MODE=release|debug|asan|coverage|fuzz] [CC=clang] [WERROR=1] [BUILD=build] [V=1]
#
# Everything a mode makes goes into $(BUILD)/$(MODE), generated C included. Reading this file needs
# nothing but make: `make check` and `make demo` first install what is missing, then read it again.

VERSION    := $(shell awk '$$2 == "COORD_VERSION" { gsub(/"/, "", $$3); print $$3 }' src/client/coord.h)
MODE       ?= release
BUILD      ?= build
PREFIX     ?= /usr
SYSCONFDIR ?= /etc
PYTHON     ?= /usr/bin/python3
OUT        := $(BUILD)/$(MODE)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

# --- what is built -----------------------------------------------------------------------------

# All but the two main programs go into one archive, so that every test can link what it needs.
lib_src   := $(sort $(wildcard $(foreach d,base proto config net store queue events registry breaker operate api admin client,src/$d/*.c)))
main_src  := $(filter-out src/coordd.c,$(wildcard src/*.c))
lib_src   += $(main_src)
ctl_src   := $(sort $(wildcard src/ctl/*.c))
unit_src  := $(sort $(wildcard tests/unit/test_*.c))
tlib_src  := $(sort $(wildcard tests/lib/*.c))
fuzz_src  := $(sort $(wildcard tests/fuzz/fuzz_*.c))
bench_client := tests/bench/client_coord.c
bench_src := $(filter-out $(bench_client),$(sort $(wildcard tests/bench/*.c)))
contract_src := $(sort $(wildcard tests/contract/*.c))
# Every script that the table names has to be there.
lua       := $(sort $(wildcard src/store/lua/*.lua) \
	$(shell awk -F '"' '/^SCRIPT/ { print "src/store/lua/" $$2 ".lua" }' src/store/scripts.def))
all_src   := $(wildcard src/*.c) $(filter-out $(main_src),$(lib_src)) $(ctl_src)
all_c     := $(all_src) $(unit_src) $(tlib_src) $(fuzz_src) $(bench_src) $(bench_client) $(contract_src)
all_h     := $(sort $(wildcard src/*.h src/*/*.h tests/lib/*.h))
formatted := $(all_c) $(all_h) $(wildcard docs/examples/c/*.c)

objects    = $(patsubst %.c,$(OUT)/%.o,$1)
gen       := $(OUT)/gen/scripts_gen.h $(OUT)/gen/build_gen.h
archive   := $(OUT)/libcoordd.a
unit_bin  := $(patsubst tests/unit/%.c,$(OUT)/unit/%,$(unit_src))
fuzz_bin  := $(patsubst tests/fuzz/%.c,$(OUT)/fuzz/%,$(fuzz_src))
bench_bin := $(OUT)/bench/load $(OUT)/bench/client_coord
contract_bin := $(OUT)/contract/driver
# The client library, for other people's programs: nothing in it but this, as position-independent code.
coord_src := $(sort $(wildcard src/client/*.c)) src/proto/frame.c src/proto/mp.c src/base/str.c
coord_obj := $(patsubst %.c,$(OUT)/pic/%.o,$(coord_src))
libcoord  := $(addprefix $(OUT)/,libcoord.a libcoord.so coord.pc)

# --- how it is built ---------------------------------------------------------------------------

# Empty, and silent, where pkg-config is still to be installed.
pkg = $(shell pkg-config $1 2>/dev/null)
event   := $(if $(call pkg,--modversion libevent_core),libevent_core libevent_extra,libevent)
msgpack := $(or $(call pkg,--libs msgpack),$(call pkg,--libs msgpack-c),-lmsgpackc)

LIB_CFLAGS := $(call pkg,--cflags $(event) hiredis yaml-0.1 libcrypto jansson)
LIBS       := $(call pkg,--libs $(event) hiredis yaml-0.1 libcrypto jansson) $(msgpack) -lm -pthread
CHECK_LIBS := $(call pkg,--libs check)

WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes \
	-Wwrite-strings -Wvla -Wformat=2 $(if $(WERROR),-Werror)
HARDEN := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection \
	-fcf-protection -fPIE
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

mode_release  := -O2 -g $(HARDEN)
mode_debug    := -Og -g
mode_asan     := -O1 -g $(SANITIZE)
mode_coverage := -O0 -g --coverage
mode_fuzz     := -O1 -g $(SANITIZE) -fsanitize=fuzzer-no-link
link_release  := -pie -Wl,-z,relro,-z,now
ifeq ($(mode_$(MODE)),)
$(error MODE=$(MODE) is none of release, debug, asan, coverage, fuzz)
endif
ifeq ($(MODE)$(origin CC),fuzzdefault)
CC := clang
endif

CPPFLAGS_ALL := -D_GNU_SOURCE -DCOORDD_VERSION='"$(VERSION)"' -Isrc -I$(OUT)/gen -Itests $(LIB_CFLAGS) $(CPPFLAGS)
CFLAGS_ALL   := -std=c11 $(mode_$(MODE)) $(WARN) $(CFLAGS)
LDFLAGS_ALL  := $(mode_$(MODE)) $(link_$(MODE)) $(LDFLAGS)

# `make V=1` shows the commands themselves.
q := $(if $(V),,@)
, := ,
say = $(if $(V),@:,@printf '  %-5s %s\n' $1 $2)

all: $(OUT)/coordd $(OUT)/coordctl $(libcoord) ## build coordd, coordctl and libcoord (in build/, and build/MODE/)
ifeq ($(MODE),release)
all: $(BUILD)/coordd $(BUILD)/coordctl
$(BUILD)/coordd $(BUILD)/coordctl: $(BUILD)/%: $(OUT)/%
	$(q)ln -sfn $(MODE)/$* $@
endif

# Other flags are another program: what was compiled with the old ones is compiled again.
$(OUT)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(flags)' | cmp -s - $@ || echo '$(flags)' >$@
flags := $(subst ','\'',$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LDFLAGS_ALL))

$(OUT)/%.o: %.c $(OUT)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(OUT)/gen/scripts_gen.h: src/store/lua/embed.awk $(lua)
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(q)awk -f $^ >$@
# What the program was built with, to tell it.
built_with = $(foreach p,$(firstword $(event)) hiredis $(firstword $(foreach m,msgpack msgpack-c,$(if $(call pkg,--exists $m && echo 1),$m))) yaml-0.1 libcrypto jansson,$p $(call pkg,--modversion $p))
$(OUT)/gen/build_gen.h: $(OUT)/flags
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(q)awk '{ gsub(/[\\"]/, "\\\\&"); print "#define BUILD_MODE \"$(MODE)\"\n#define BUILD_WITH \"$(strip $(built_with))\"\n#define BUILD_FLAGS \"" $$0 "\"" }' $< >$@
$(OUT)/src/store/script.o: $(OUT)/gen/scripts_gen.h
$(OUT)/src/version.o: $(OUT)/gen/build_gen.h
$(OUT)/src/admin/openapi.o: src/admin/openapi.json
$(OUT)/src/ctl/completion.o: src/ctl/completion.bash

$(archive): $(call objects,$(lib_src))
	$(call say,AR,$@)
	$(q)rm -f $@ && $(AR) rcs $@ $^

$(OUT)/coordd: $(OUT)/src/coordd.o $(archive)
	$(call say,LINK,$@)
	$(q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$(OUT)/coordctl: $(call objects,$(ctl_src)) $(archive)
	$(call say,LINK,$@)
	$(q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

# It decides which allocation fails.
$(OUT)/unit/test_coord_client_memory: private LDFLAGS_ALL += $(patsubst %,-Wl$(,)--wrap=%,malloc calloc realloc free strdup strndup)
$(OUT)/unit/%: $(OUT)/tests/unit/%.o $(call objects,$(tlib_src)) $(archive)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS) $(CHECK_LIBS)

$(OUT)/pic/%.o: %.c $(OUT)/flags
	$(call say,PIC,$<)
	@mkdir -p $(@D)
	$(q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

# One object in which only the names of coord.h can be seen, so that nothing in it collides with a program's own.
$(OUT)/libcoord.a: $(coord_obj)
	$(call say,AR,$@)
	$(q)$(LD) -r -o $(OUT)/libcoord.o $^ && objcopy --localize-hidden $(OUT)/libcoord.o
	$(q)rm -f $@ && $(AR) rcs $@ $(OUT)/libcoord.o

$(OUT)/libcoord.so.0: $(coord_obj) src/client/coord.map
	$(call say,LINK,$@)
	$(q)$(CC) $(filter-out -pie -fPIE,$(LDFLAGS_ALL)) -shared -Wl,-soname,libcoord.so.0 \
	 -Wl,--version-script=src/client/coord.map $(coord_link) -o $@ $(coord_obj) $(call pkg,--libs $(event)) $(msgpack) -pthread
# A sanitizer's functions are in the program.
coord_link := $(if $(filter asan fuzz coverage,$(MODE)),,-Wl,-z,defs)

$(OUT)/libcoord.so: $(OUT)/libcoord.so.0
	$(q)ln -sfn $(<F) $@

$(OUT)/coord.pc: src/client/coord.pc.in src/client/coord.h $(OUT)/flags
	$(call say,GEN,$@)
	$(q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@EVENT@|$(event)|' \
	 -e 's|@MSGPACK@|$(if $(call pkg,--modversion msgpack),msgpack,msgpack-c)|' $< >$@

$(OUT)/fuzz/%: $(OUT)/tests/fuzz/%.o $(archive)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(q)$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ $(LIBS)

$(OUT)/bench/load: $(call objects,$(bench_src) src/base/hist.c)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$(OUT)/bench/client_coord: $(call objects,$(bench_client)) $(archive)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

$(contract_bin): $(call objects,$(contract_src)) $(archive)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

# --- man pages and completion ------------------------------------------------------------------

man_pages := $(addprefix $(OUT)/man/,coordd.8 coordctl.1 coordd.yaml.5 coordd-protocol.7)
man = $(call say,GEN,$@); mkdir -p $(@D); awk -f docs/man/man.awk -v version=$(VERSION) -v date=$$(date -u -r CHANGELOG.md +%F) \
	-v name=$(basename $(@F)) -v section=$(subst .,,$(suffix $@)) -v what=$1 -v synopsis=$2 -v see=$3 $4 >$@
man_tables := docs/man/man.awk CHANGELOG.md Makefile
of_coordd := Flags|Exit status|Signals

$(OUT)/man/coordd.8: $(man_tables) docs/CONFIG.md docs/OPERATIONS.md docs/LOGGING.md
	$(call man,'coordination broker for agents','coordd [OPTION]...','coordctl(1)$(,) coordd.yaml(5)$(,) coordd\-protocol(7)', \
	 only='$(of_coordd)' docs/CONFIG.md only= docs/OPERATIONS.md docs/LOGGING.md)
$(OUT)/man/coordctl.1: $(man_tables) src/ctl/verbs.def src/ctl/options.def docs/COORDCTL.md
	$(call man,'look at and work on a coordd','coordctl VERB [ARGUMENT]... [OPTION]...','coordd(8)$(,) coordd.yaml(5)', \
	 src/ctl/verbs.def src/ctl/options.def docs/COORDCTL.md)
$(OUT)/man/coordd.yaml.5: $(man_tables) docs/CONFIG.md
	$(call man,'configuration of coordd','/etc/coordd/coordd.yaml','coordd(8)$(,) coordctl(1)',but='$(of_coordd)' docs/CONFIG.md)
$(OUT)/man/coordd-protocol.7: $(man_tables) docs/PROTOCOL.md
	$(call man,'what coordd and its clients say to each other','','coordd(8)',docs/PROTOCOL.md)
all: $(man_pages)

all: $(OUT)/completion
$(OUT)/completion: $(OUT)/coordctl
	$(call say,GEN,$@)
	$(q)$< completion bash >$@

units: $(unit_bin) $(contract_bin)

# --- what people ask for -----------------------------------------------------------------------

# Each of these first installs what is missing (which changes what pkg-config says) and then runs make anew.
again = +@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$$(nproc))

deps: ## install what building and testing need (deps-build: less; deps-lint, deps-bench, deps-fuzz: more)
	@.ci/deps build test
deps-build:
	@.ci/deps build
deps-%: deps
	@.ci/deps $*

demo: deps-build ## watch messages live through a daemon and a Redis of their own
	$(again) all
	@COORDD=$(OUT)/coordd COORDCTL=$(OUT)/coordctl tests/demo.sh

run: deps-build ## run coordd in the foreground with a Redis of its own; data in build/run
	$(again) all
	@mkdir -p $(BUILD)/run
	$(OUT)/coordd --embedded-redis $(abspath $(BUILD)/run/redis)

check: deps ## build, then run every test
	$(again) all units
	$(run_tests) $(suites:%=--integration %) $(unit_bin)
check-unit: deps ## only the unit tests
	$(again) units
	$(run_tests) $(unit_bin)
check-integration: deps ## only the tests with a real redis-server
	$(again) all
	$(run_tests) --integration tests/integration
# Those that have tests.
suites = $(patsubst %/,%,$(sort $(dir $(wildcard $(addsuffix /test_*.py,tests/integration tests/python tests/contract)))))

check-python: deps mypy ## the Python package: types, its tests, and whether they reach every line
	$(again) all
	@mkdir -p $(BUILD)/python
	@COVERAGE_FILE=$(abspath $(BUILD))/python/coverage $(run_tests:@%=%) --integration tests/python \
	 --cover $(abspath src/python)/pyproject.toml
check-asan: ## every test under the address and undefined-behaviour sanitizers
	$(again) MODE=asan check

check-systemd: deps deps-systemd ## the service in a real systemd, booted for it (root); half a minute
	$(again) all
	+@MAKE='$(MAKE)' MODE=$(MODE) tests/systemd/run $(SYSTEMD_ARGS)

check-metrics: deps deps-metrics ## promtool on the metrics, the alert rules and their tests; a real Prometheus that scrapes
	$(again) all
	$(run_tests:@%=@PYTHONPATH=tests/integration %) --integration tests/prometheus

# By how much a mode's limits of time are stretched.
slow_asan := 4
slow_coverage := 2
slow := $(or $(slow_$(MODE)),1)
unit_slow = $(slow)
run_tests = @ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 \
	TEST_SLOW=$(slow) CK_TIMEOUT_MULTIPLIER=$(unit_slow) \
	COORDD=$(abspath $(OUT))/coordd COORDCTL=$(abspath $(OUT))/coordctl \
	COORD_DRIVER=$(abspath $(contract_bin)) $(PYTHON) -B tests/run

valgrind: deps-lint ## the unit tests, and libcoord in the contract suite, under valgrind
	$(again) MODE=debug under-valgrind
memcheck = valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect
under-valgrind: all units
	$(run_tests:@%=@CK_EXCLUDE_TAGS=not_valgrind COORD_DRIVERS=c COORD_DRIVER_WRAP='$(memcheck)' %) $(unit_bin) \
	 --wrap '$(memcheck)' --integration tests/contract
under-valgrind: slow = 4
under-valgrind: unit_slow = 20

coverage: ## every test, then which part of each file they reached
	$(again) MODE=coverage check
	@tests/lint/coverage $(BUILD)/coverage

fuzz: deps-fuzz ## each fuzz target for FUZZ_SECONDS (30)
	$(again) MODE=fuzz fuzzers
FUZZ_SECONDS ?= 30
fuzzers: $(fuzz_bin)
	@set -e; for f in $(fuzz_bin); do \
		mkdir -p $$f.corpus; \
		$$f -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -malloc_limit_mb=64 -artifact_prefix=$$f. \
		    $$f.corpus $$(ls -d tests/fuzz/corpus/$${f##*/} 2>/dev/null); done

bench: deps-bench ## compare with beanstalkd and raw Redis lists, count instructions; takes minutes
	$(again) all $(bench_bin)
	@COORDD=$(OUT)/coordd tests/bench/run $(BENCH_ARGS)
	@COORDD=$(OUT)/coordd tests/bench/callgrind

bench-clients: deps-bench ## messages per second of each client library, closed loop and pipelined; three minutes
	$(again) all $(bench_bin)
	@COORDD=$(OUT)/coordd tests/bench/clients $(BENCH_ARGS)

soak: deps ## memory over 10 million messages; 10,000 queues, connections, agents; takes minutes
	$(again) all $(bench_bin)
	@COORDD=$(abspath $(OUT))/coordd $(PYTHON) -B tests/soak $(SOAK_ARGS)

model: deps-model ## search the models in tests/model, and see that they notice mistakes
	@CC='$(CC)' $(PYTHON) -B tests/model/run $(MODEL_ARGS)

# --- what is checked without running it --------------------------------------------------------

lint: format-check tidy cppcheck layers docs-check shellcheck check-unit-files mypy ## all of the following checks

format: deps-lint ## reformat the C files
	clang-format -i $(formatted)
format-check: deps-lint ## is every C file formatted?
	@for f in $(formatted); do clang-format $$f | cmp -s - $$f || { echo "$$f: not formatted"; bad=1; }; \
	 done; test -z "$$bad" || { echo "make format would mend that"; exit 1; }
	@echo "format: $(words $(formatted)) files are formatted"

tidy: deps-lint $(gen) ## clang-tidy
	@printf '%s\n' $(all_c) | xargs -P $$(nproc) -I FILE \
	 clang-tidy --quiet FILE -- -std=c11 $(CPPFLAGS_ALL) $(WARN) 2>/dev/null
	@echo "tidy: $(words $(all_c)) files are clean"

# Not uninitvar: it does not see through the macros of uthash and <sys/queue.h>; valgrind does.
cppcheck: deps-lint $(gen) ## cppcheck
	@mkdir -p $(OUT)/cppcheck
	@cppcheck -q -j $$(nproc) --cppcheck-build-dir=$(OUT)/cppcheck --std=c11 --enable=warning,performance,portability \
	 --library=posix,gnu,bsd,openssl --inline-suppr --suppress=missingIncludeSystem --suppress=uninitvar --suppress=ctuuninitvar \
	 --suppress=legacyUninitvar --suppress=getpwnamCalled --error-exitcode=1 \
	 -D_GNU_SOURCE -DCOORDD_VERSION='"$(VERSION)"' -Isrc -I$(OUT)/gen \
	 --include=tests/lint/cppcheck.h $(all_src)
	@echo "cppcheck: $(words $(all_src)) files are clean"

layers: ## does each folder include only what src/LAYERS lets it?
	@tests/lint/layers src/LAYERS $(sort $(wildcard src/*.[ch] src/*/*.[ch]))

docs-check: deps ## is every method, error, option, script and target named in the docs?
	@$(PYTHON) -B tests/lint/docs-check

mypy: deps deps-lint ## mypy --strict on the Python package
	@mkdir -p $(BUILD)/python
	@cd src/python && $(PYTHON) -B -m mypy --cache-dir=$(abspath $(BUILD))/python/mypy

shellcheck: deps-lint ## shellcheck
	@shellcheck $(shell_scripts) && echo "shellcheck: $(words $(shell_scripts)) scripts are clean"
shell_scripts = $(shell grep -lE '^\#!.*(/| )(ba)?sh' .ci/* $$(find tests -type f ! -name '*.[cho]'))

# As a service manager reads them; the programs that they start are those that were built.
check-unit-files: deps-lint ## does systemd find the service's files well-formed, and at most 1.1 exposed?
	$(again) all
	@mkdir -p $(OUT)/systemd
	@for f in service socket; do \
		sed 's|/usr/sbin/coordd|$(abspath $(OUT))/coordd|;s|/usr/bin/coordctl|$(abspath $(OUT))/coordctl|' \
		    systemd/coordd.$$f >$(OUT)/systemd/coordd.$$f; done
	@systemd-analyze verify --man=no --recursive-errors=one $(OUT)/systemd/coordd.service $(OUT)/systemd/coordd.socket
	@systemd-analyze security --offline=true --no-pager --threshold=11 systemd/coordd.service | tail -n 1

# --- the rest ----------------------------------------------------------------------------------

# The files of systemd/ name the paths of PREFIX=/usr and SYSCONFDIR=/etc.
their_paths = sed -e 's|/usr/\(s\?bin\)/coord|$(PREFIX)/\1/coord|g' -e 's|/usr/share/doc|$(PREFIX)/share/doc|g' -e 's|/etc/\(coordd\|default\)/|$(SYSCONFDIR)/\1/|g'
put = install -D -m 644 /dev/stdin $(DESTDIR)$1

python_files = $(sort $(patsubst src/python/%,%,$(wildcard $(foreach ext,*.py */*.py py.typed,src/python/tta_agent_coordination/$(ext)))))

install: all ## into DESTDIR; PREFIX is /usr; a configuration that is there stays
	install -D -m 755 $(OUT)/coordd $(DESTDIR)$(PREFIX)/sbin/coordd
	install -D -m 755 $(OUT)/coordctl $(DESTDIR)$(PREFIX)/bin/coordctl
	+@$(MAKE) --no-print-directory install-libcoord
	$(their_paths) systemd/coordd.service | $(call put,$(PREFIX)/lib/systemd/system/coordd.service)
	$(their_paths) systemd/coordd.socket | $(call put,$(PREFIX)/lib/systemd/system/coordd.socket)
	$(call put,$(PREFIX)/lib/sysusers.d/coordd.conf) <systemd/coordd.sysusers
	$(call put,$(PREFIX)/lib/tmpfiles.d/coordd.conf) <systemd/coordd.tmpfiles
	@for f in $(python_files); do install -D -m 644 src/python/$$f $(DESTDIR)$(PREFIX)/lib/python3/dist-packages/$$f; done
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/coordd README.md CHANGELOG.md docs/*.md conf/prometheus/*
	$(foreach p,$(man_pages),install -D -m 644 $p $(DESTDIR)$(PREFIX)/share/man/man$(subst .,,$(suffix $p))/$(notdir $p) &&) true
	install -D -m 644 $(OUT)/completion $(DESTDIR)$(PREFIX)/share/bash-completion/completions/coordctl
	test -e $(DESTDIR)$(SYSCONFDIR)/default/coordd || \
	 $(their_paths) systemd/coordd.default | $(call put,$(SYSCONFDIR)/default/coordd)
	@# The service makes /run/coordd, so there are sockets in it.
	test -e $(DESTDIR)$(SYSCONFDIR)/coordd/coordd.yaml || \
	 sed -e 's|^    - tcp://127.0.0.1:7420$$|&\n    - unix:///run/coordd/coordd.sock|' \
     -e 's|^    - tcp://127.0.0.1:7421$$|&\n    - unix:///run/coordd/admin.sock|' conf/coordd.yaml | \
	 $(call put,$(SYSCONFDIR)/coordd/coordd.yaml)

# Of what is built already: the tests use it.
install-libcoord:
	install -D -m 755 $(OUT)/libcoord.so.0 $(DESTDIR)$(PREFIX)/lib/libcoord.so.0
	ln -sfn libcoord.so.0 $(DESTDIR)$(PREFIX)/lib/libcoord.so
	install -D -m 644 $(OUT)/libcoord.a $(DESTDIR)$(PREFIX)/lib/libcoord.a
	install -D -m 644 src/client/coord.h $(DESTDIR)$(PREFIX)/include/coord.h
	sed 's|^prefix=.*|prefix=$(PREFIX)|' $(OUT)/coord.pc | $(call put,$(PREFIX)/lib/pkgconfig/coord.pc)

uninstall: ## remove what install put there; the configuration and the data stay
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,sbin/coordd bin/coordctl lib/libcoord.so.0 lib/libcoord.so \
	 lib/libcoord.a include/coord.h lib/pkgconfig/coord.pc lib/systemd/system/coordd.service \
	 lib/systemd/system/coordd.socket lib/sysusers.d/coordd.conf lib/tmpfiles.d/coordd.conf \
	 share/bash-completion/completions/coordctl \
	 $(foreach p,$(man_pages),share/man/man$(subst .,,$(suffix $p))/$(notdir $p)))
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/coordd $(DESTDIR)$(PREFIX)/lib/python3/dist-packages/tta_agent_coordination

clean: ## remove what was built
	rm -rf $(BUILD)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: all units install-libcoord deps demo run check check-unit check-integration check-python mypy check-asan check-metrics check-systemd valgrind coverage fuzz \
	under-valgrind fuzzers bench bench-clients soak model lint format format-check tidy cppcheck layers docs-check shellcheck check-unit-files install \
	uninstall clean help FORCE
.SECONDARY:
FORCE:

-include $(patsubst %.c,$(OUT)/%.d,$(all_c)) $(coord_obj:.o=.d)
