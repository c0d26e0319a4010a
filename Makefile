# tidegate: a connection gateway for Linux
#
#   make            build everything into build/
#   make run        install what is missing, build, start the demo gateway
#   make check      install what is missing, build, run every test (plain, address and undefined sanitizers)
#   make test       build and run the tests of this build only (combine with SAN=)
#   make bench      print the measurements of README and docs
#   make bench-bpf  print what admission costs a packet in the kernel (root)
#   make bench-sched  print what measuring delays in the kernel costs (root)
#   make bench-gate print what the gate in the kernel keeps off: a spoofed flood, greedy sources, a storm (root)
#   make fuzz       run each fuzzer for FUZZ_SECONDS (30)
#   make vmtest     guest tests on a matrix of kernels, KERNEL="6.1 6.12 newest" TEST="probe uring …" (docs/vm-tests.md)
#   make vmtest-smoke     the quick ones of them, on two kernels
#   make vmtest-verifier  the table in docs/verifier.md: what the kernels' verifiers spend on each BPF program
#   make vmtest-selftest  shows that a hang, a panic or a broken BPF program turns such a run red
#   make soak       the leak test: 10,000 connections closed in every state, under the address sanitizer
#   make install    DESTDIR= PREFIX=/usr/local
#   make deps       install build and test dependencies (Debian 12 and 13)
#   make clean      remove build/
#
# Variables: V=1 shows the commands, SAN=address|undefined|thread (or several, with commas) builds into build/$(SAN)/, CC=clang works too;
# LANES=1 runs one file of tests after another, not one more at a time than there are CPUs.

SAN ?=
B := build$(if $(SAN),/$(SAN))
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 30
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

DEPS := build/deps
URING := $(DEPS)/liburing/usr
UPLOT := $(DEPS)/dashboard/node_modules/uplot
LIBS := libcyaml yaml-0.1 jansson libmicrohttpd libjwt libcrypto libcap-ng zlib libbpf libxdp
# The BPF programs do not depend on SAN: one set under build/ serves every build.
CLANG ?= clang
LLVM_STRIP ?= $(if $(shell command -v llvm-strip),llvm-strip,:)
BPFTOOL ?= $(if $(shell command -v bpftool),bpftool,/usr/sbin/bpftool)

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter
CPPFLAGS_ALL := -D_GNU_SOURCE -DTG_VERSION='"0.1.0"' -Iinclude -Iuser -Ibuild -isystem $(URING)/include \
	$(if $(wildcard $(DEPS)/compat),-isystem $(DEPS)/compat) $(CPPFLAGS)
SAN_FLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=all))
CFLAGS_ALL = -std=c11 -fno-strict-aliasing -fPIC $(WARN) $(SAN_FLAGS) $(CFLAGS) $(shell pkg-config --cflags $(LIBS) 2>/dev/null)
LDLIBS_ALL = $(wildcard $(URING)/lib/*/liburing.a) $(shell pkg-config --libs $(LIBS) 2>/dev/null) -lpthread -lm

# The gateway's code is every file under user/ but main.c; each tests/test_x.c, tools/x/*.c and tests/support/x.c is one program.
GATEWAY_SRC := $(shell find user -name '*.c' ! -name main.c 2>/dev/null | sort)
GATEWAY_OBJ := $(GATEWAY_SRC:%.c=$(B)/obj/%.o)
LIB := $(B)/libtidegate-core.a

BPF_SRC := $(wildcard bpf/*.bpf.c tests/*/*.bpf.c)
BPF_SKEL := $(BPF_SRC:%.bpf.c=build/%.skel.h)
BPF_CFLAGS := -target bpf -mcpu=v3 -O2 -g -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -Iinclude -Ibpf \
	-idirafter /usr/include/$(shell $(CC) -print-multiarch)

LINK_SRC := $(wildcard tools/libtidegate-link/*.c) user/proto/link_codec.c
LINK_OBJ := $(LINK_SRC:%.c=$(B)/obj/%.o)

TOOLS := $(notdir $(patsubst %/,%,$(filter-out tools/packaging/ tools/libtidegate-link/,$(wildcard tools/*/))))
tool_obj = $(patsubst %.c,$(B)/obj/%.o,$(wildcard tools/$(1)/*.c))

UNIT := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c))
# They load programs into the kernel, or are skipped where that is not permitted.
UNIT_BPF := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/bpf/test_*.c))
SUPPORT := $(patsubst tests/support/%.c,$(B)/tests/support/%,$(filter-out %.bpf.c,$(wildcard tests/support/*.c)))
# What the guest tests run beside the tests themselves; of use only where there are BPF programs.
VM_TOOLS := $(if $(shell pkg-config --exists libbpf && echo yes),$(B)/vmtests/verify)
FUZZERS := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all deps run check test unit bpf e2e bench bench-bpf bench-gate bench-sched fuzz soak install clean help format vmtest vmtest-smoke vmtest-selftest vmtest-verifier

# With dependencies missing, the build starts over once they are there, since the flags above depend on them.
ifeq ($(wildcard $(DEPS)/.done),)
all run test unit bpf e2e bench bench-bpf bench-gate bench-sched fuzz soak install vmtest vmtest-smoke vmtest-selftest vmtest-verifier: deps
	$(Q)$(MAKE) --no-print-directory $@
else
all: $(B)/tidegate $(TOOLS:%=$(B)/%) $(B)/libtidegate-link.a $(B)/libtidegate-link.so

run: all
	$(Q)tools/packaging/demo.sh $(B)

test: all $(UNIT) $(UNIT_BPF) $(SUPPORT)
	$(Q)tests/run.py $(B) unit bpf e2e

tests-built: $(UNIT) $(UNIT_BPF) $(SUPPORT)

bpf: $(UNIT_BPF)
	$(Q)tests/run.py $(B) bpf

unit: $(UNIT)
	$(Q)tests/run.py $(B) unit

e2e: all $(SUPPORT)
	$(Q)tests/run.py $(B) e2e

bench: all $(SUPPORT)
	$(Q)tests/bench/run.sh $(B)

bench-bpf: $(B)/tests/bench/admit_bench
	$(Q)$<

# In a network namespace of its own: the gate is attached to its loopback, not to the machine's.
bench-sched: all
	$(Q)unshare --net sh -c 'ip link set lo up && exec /usr/bin/python3 -B tests/bench/sched.py $(B)'

bench-gate: all $(SUPPORT)
	$(Q)/usr/bin/python3 -B tests/bench/gate.py $(B)

fuzz:
	$(Q)$(MAKE) --no-print-directory CC=clang SAN=fuzzer,address,undefined fuzzers
	$(Q)tests/fuzz/run.sh build/fuzzer,address,undefined/fuzz $(FUZZ_SECONDS)

soak:
	$(Q)$(MAKE) --no-print-directory SAN=address soak-run

soak-run: all
	$(Q)tests/run.py $(B) soak

# Built here, only run in the guests.
vmtest vmtest-smoke vmtest-selftest vmtest-verifier: all tests-built $(VM_TOOLS)
vmtest:
	$(Q)vmtests/run.sh $(B)

vmtest-smoke:
	$(Q)vmtests/run.sh $(B) smoke

vmtest-selftest:
	$(Q)vmtests/selftest.sh $(B)

# What stands above the mark in the document is written by hand.
vmtest-verifier:
	$(Q)TEST=verifier VM_REQUIRE=1 vmtests/run.sh $(B)
	$(Q)sed -i '/^<!-- made by make vmtest-verifier -->/q' docs/verifier.md
	$(Q)cat $(B)/vm/verifier.md >>docs/verifier.md

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include/tidegate
	install -m 755 $(B)/tidegate $(TOOLS:%=$(B)/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(B)/libtidegate-link.a $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(B)/libtidegate-link.so $(DESTDIR)$(PREFIX)/lib
	install -m 644 include/tidegate/link.h include/tidegate/raw.h $(DESTDIR)$(PREFIX)/include/tidegate
	install -d $(DESTDIR)$(PREFIX)/share/tidegate/grafana $(DESTDIR)$(PREFIX)/share/tidegate/prometheus
	install -m 644 tools/packaging/grafana/tidegate.json $(DESTDIR)$(PREFIX)/share/tidegate/grafana
	install -m 644 tools/packaging/prometheus/tidegate.rules.yml $(DESTDIR)$(PREFIX)/share/tidegate/prometheus
endif

deps $(DEPS)/.done:
	$(Q)tools/packaging/deps.sh build
	$(Q)touch $(DEPS)/.done

# The whole suite twice; the closing line is the sum.
check: deps
	$(Q)tests/check.sh

.PHONY: fuzzers tests-built soak-run
fuzzers: $(FUZZERS)

$(B)/tidegate: $(B)/obj/user/main.o $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

$(LIB): $(GATEWAY_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/libtidegate-link.a: $(LINK_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/libtidegate-link.so: $(LINK_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -shared -Wl,-soname,libtidegate-link.so -o $@ $^

define tool_rule
$(B)/$(1): $(call tool_obj,$(1)) $(B)/libtidegate-link.a $(LIB)
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(CFLAGS_ALL) $$(LDFLAGS) -o $$@ $(call tool_obj,$(1)) $(B)/libtidegate-link.a $(LIB) $$(LDLIBS_ALL)
endef
$(foreach t,$(TOOLS),$(eval $(call tool_rule,$(t))))
$(B)/tidegatectl $(B)/tests/test_doctor $(B)/tests/test_top: LDLIBS_ALL += $(shell pkg-config --libs ncursesw 2>/dev/null)

$(B)/tests/test_%: $(B)/obj/tests/test_%.o $(B)/libtidegate-link.a $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ $(LIB) -lcmocka $(LDLIBS_ALL)

$(B)/tests/bpf/%: $(B)/obj/tests/bpf/%.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS_ALL)

$(B)/obj/tests/bpf/%.o: CPPFLAGS_ALL += -Itests/support

# These are about a tool's own modules.
$(B)/tests/test_doctor $(B)/tests/test_top: $(filter-out %/main.o,$(call tool_obj,tidegatectl))

# These run the program beside them.
$(B)/tests/test_tidegatectl: | $(B)/tidegatectl
$(B)/tests/test_tidegate_service: | $(B)/tidegate-service

$(B)/tests/support/%: $(B)/obj/tests/support/%.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

$(B)/tests/bench/%: $(B)/obj/tests/bench/%.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

$(B)/vmtests/%: $(B)/obj/vmtests/%.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs libbpf)

$(B)/fuzz/%: $(B)/obj/tests/fuzz/%.o $(LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ $(LDLIBS_ALL)

build/%.bpf.o: %.bpf.c Makefile
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<
	$(Q)$(LLVM_STRIP) -g $@

build/%.skel.h: build/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $(*F)_bpf > $@

# Skeletons are made before anything is compiled; which object depends on which, the .d files say.
$(B)/obj/%.o: %.c Makefile | $(BPF_SKEL)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# The page is in it (.incbin), which the compiler's dependency file does not say.
$(B)/obj/user/ops/admin_chat.o: user/ops/chat/chat.html
$(B)/obj/user/ops/admin_dashboard.o: build/dashboard.html

build/dashboard.html: $(wildcard user/ops/dashboard/*) tools/packaging/dashboard/page.sh $(UPLOT)/dist/uPlot.iife.min.js
	$(call say,PAGE,$@)
	$(Q)tools/packaging/dashboard/page.sh $(UPLOT) $@

# An update may find dependencies installed that do not have it yet.
$(UPLOT)/dist/uPlot.iife.min.js: tools/packaging/dashboard/package-lock.json
	$(Q)tools/packaging/deps.sh build
	$(Q)touch $@

-include $(shell find $(B)/obj build/bpf build/tests -name '*.d' 2>/dev/null)

clean:
	$(Q)rm -rf build

help:
	@sed -n '/^# tidegate/,/^$$/s/^# \{0,1\}//p' Makefile

format:
	clang-format -i $$(git ls-files '*.c' '*.h')
