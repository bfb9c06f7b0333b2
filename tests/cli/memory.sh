#!/usr/bin/env bash
# An allocation that fails: the right result, or status 1 and one line; never status 0 and half a result. A sample of all allocations.
. "${BASH_SOURCE%/*}/common.bash"
cc=${CC:-gcc}
command -v "$cc" >/dev/null || { echo "$cc is not here, which makes the library that fails allocations"; exit 77; }
ldd "$espalier" 2>/dev/null | grep -q 'asan\|ubsan' && { echo "a build with sanitizers has its own allocator"; exit 77; }
cat >fail.c <<'C'
/* malloc, calloc and realloc that return NULL once, at the FAIL_AT-th call; FAIL_AT=0 counts and says how many there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static atomic_long calls;
static long at = -1;
static void *(*real_malloc)(size_t), *(*real_calloc)(size_t, size_t), *(*real_realloc)(void *, size_t);
static char early[65536]; /* for dlsym, which allocates */
static size_t early_used;
__attribute__((constructor)) static void begin(void)
{
    real_malloc = dlsym(RTLD_NEXT, "malloc");
    real_calloc = dlsym(RTLD_NEXT, "calloc");
    real_realloc = dlsym(RTLD_NEXT, "realloc");
    /* libcrypto sets itself up at the first digest, and crashes where that fails: not ours to judge */
    int (*digest)(const void *, size_t, unsigned char *, unsigned *, const void *, void *) = dlsym(RTLD_DEFAULT, "EVP_Digest");
    const void *(*sha256)(void) = dlsym(RTLD_DEFAULT, "EVP_sha256");
    unsigned char sum[64];
    if (digest && sha256)
        digest("", 0, sum, NULL, sha256(), NULL);
    at = getenv("FAIL_AT") ? atol(getenv("FAIL_AT")) : -1;
}
__attribute__((destructor)) static void end(void)
{
    if (at == 0)
        dprintf(2, "%ld\n", atomic_load(&calls));
}
static int fails(void)
{
    if (at < 0 || atomic_fetch_add(&calls, 1) + 1 != at)
        return 0;
    errno = ENOMEM;
    return 1;
}
static void *from_early(size_t n)
{
    void *p = early + early_used;
    early_used += (n + 15) / 16 * 16;
    return early_used <= sizeof early ? p : NULL;
}
void *malloc(size_t n) { return !real_malloc ? from_early(n) : fails() ? NULL : real_malloc(n); }
void *calloc(size_t n, size_t k) { return !real_calloc ? from_early(n * k) : fails() ? NULL : real_calloc(n, k); }
static int is_early(void *p) { return (char *)p >= early && (char *)p < early + sizeof early; }
void *realloc(void *p, size_t n)
{
    if (!real_realloc || is_early(p)) {
        void *q = real_malloc ? real_malloc(n) : from_early(n);
        return p && q ? memcpy(q, p, n) : q; /* what lies behind an early block is ours, too */
    }
    return fails() ? NULL : real_realloc(p, n);
}
void free(void *p)
{
    static void (*real_free)(void *);
    if (!p || is_early(p))
        return;
    if (!real_free)
        real_free = dlsym(RTLD_NEXT, "free");
    real_free(p);
}
C
"$cc" -O1 -fPIC -shared -w -o fail.so fail.c -ldl || { echo "no preload library can be made"; exit 77; }
make_inputs
succeeds train model --rows rows.json --steps 1 --batch 4 --val-size 0 --rank 2 --warmup 0 --out adapter --quiet

# each OUT WHAT WORDS...: `what` of every run that ends with 0 is that of the undisturbed one
each() {
    local out=$1 what=$2 want total n status tries=20
    shift 2
    "$espalier" "$@" >.log/o 2>.log/err </dev/null || { complain "$*: fails undisturbed"; return; }
    want=$(eval "$what")
    rm -rf $out
    total=$(FAIL_AT=0 LD_PRELOAD=./fail.so "$espalier" "$@" 2>&1 >/dev/null </dev/null | tail -n 1)
    [ "${total:-0}" -gt 100 ] || { complain "$1: allocations are not counted: $total"; return; }
    for n in $(seq 3 $(((total + tries - 1) / tries)) "$total"); do
        rm -rf $out
        FAIL_AT=$n LD_PRELOAD=./fail.so "$espalier" "$@" >.log/o 2>.log/err </dev/null
        status=$?
        if [ $status = 0 ]; then
            [ "$(eval "$what")" = "$want" ] || complain "$1, allocation $n of $total: status 0, and another result"
        elif [ $status != 1 ] || ! grep -q '^espalier: .' .log/err; then
            complain "$1, allocation $n of $total: status $status"
        elif [ -e "$out" ]; then
            [ "$(eval "$what")" = "$want" ] || complain "$1, allocation $n of $total: half of $out under its name"
        fi
    done
    rm -rf $out
}
each s.json 'sed -n "/\"blocks\"/,/\"order\"/p" s.json' score model --calib calib.txt --samples 2 --seq-len 8 --criterion bi --out s.json --quiet --threads 1
each m 'ls m | tr "\n" " "' merge model --adapter adapter --out m --quiet --threads 1
each p.gguf 'sha256sum <p.gguf' prune model --drop 1 --out p.gguf --force --quiet --threads 1
each none 'sed "s/.*\"ids\"//; s/\"program_version.*//" .log/o' generate model --prompt tree --max-tokens 2 --json --quiet --threads 1
# a tokenizer that cannot be read is no error of inspect, which says why in its place
each none 'sed "s/\"tokenizer\":\"[^\"]*\"//" .log/o | wc -c' inspect model --json
verdict
