/* Every row kernel of every instruction set against a scalar reference in double, on sizes that leave tails. Where a result is
 * exact, all instruction sets must give the same bits. */
#include "tests/fixtures/fixture.h"

enum { MAX_N = 1056, GUARD = 16 };
static const int64_t sizes[] = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 127, 255, 513, 800, 1037};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static const struct row_kernels *levels[MAX_LEVELS]; /* of this machine, portable first */
static int n_levels;

static int find_levels(void **state)
{
    struct compute cp;
    struct err why = {0};
    (void)state;
    n_levels = levels_of_machine(levels);
    assert_ptr_equal(levels[0], &rows_portable);
    setenv("ESPALIER_ISA", "avx1024", 1);
    assert_int_equal(compute_open(&cp, 1, PRECISION_F32, &why), -1);
    assert_int_equal(why.code, ERR_USAGE);
    unsetenv("ESPALIER_ISA");
    OK(compute_open(&cp, 1, PRECISION_F32, &err)); /* unforced, the best one is taken */
    assert_ptr_equal(cp.rows, levels[n_levels - 1]);
    compute_close(&cp);
    return 0;
}

/* Inputs a, b, c and d; outputs y and z between guards that must stay. */
static float a[MAX_N], b[MAX_N], c[MAX_N], d[MAX_N], y_room[MAX_N + 2 * GUARD], z_room[MAX_N + 2 * GUARD], first_y[MAX_N];
static float *const y = y_room + GUARD, *const z = z_room + GUARD;
static int64_t n;                    /* values in use */
static const struct row_kernels *rk; /* level in use */

static void refill(void)
{
    struct rng rng;
    rng_seed(&rng, 1000 + (uint64_t)n);
    fill_random(a, MAX_N, 3, &rng);
    fill_random(b, MAX_N, 3, &rng);
    fill_random(c, MAX_N, 3, &rng);
    fill_random(d, MAX_N, 3, &rng);
    for (int i = 0; i < MAX_N + 2 * GUARD; i++)
        y_room[i] = z_room[i] = 12345;
}

static void check_guards(void)
{
    for (int i = 0; i < GUARD; i++)
        if (y[-1 - i] != 12345 || y[n + i] != 12345 || z[-1 - i] != 12345 || z[n + i] != 12345)
            fail_msg("%s: wrote outside its %lld values", rk->isa, (long long)n);
}

static void check(float got, double want, double allowed, const char *what)
{
    if (!(fabs((double)got - want) <= allowed))
        fail_msg("%s of %s, n = %lld: %.9g, expected %.9g within %.2g", what, rk->isa, (long long)n, (double)got, want, allowed);
}

/* The same bits from every level; called for the first one first. */
static void check_same(const float *got, const char *what)
{
    if (rk == levels[0])
        memcpy(first_y, got, (size_t)n * sizeof *got);
    else
        assert_same_bits(got, first_y, (size_t)n * sizeof *got, what);
}

/* Runs `one` on every size for every level. */
static void on_all(void (*one)(void))
{
    for (int i = 0; i < N_SIZES; i++)
        for (int k = 0; k < n_levels; k++) {
            n = sizes[i];
            rk = levels[k];
            refill();
            one();
            check_guards();
        }
}

/* ---- the functions ---- */

static double dot_reference(const float *u, const float *v, double *size)
{
    double s = 0;
    *size = 0;
    for (int64_t i = 0; i < n; i++) {
        s += (double)u[i] * (double)v[i];
        *size += fabs((double)u[i] * (double)v[i]);
    }
    return s;
}

/* A sum of n products in at least 8 running sums: at most n / 8 additions and a product, then the sums and the tail together. */
static double dot_allowed(double size)
{
    return ((double)n / 8 + 20) * EPS * size;
}

static void one_dot(void)
{
    double size, want = dot_reference(a, b, &size);
    check(rk->dot(a, b, n), want, dot_allowed(size), "dot");
}

static void one_elementwise(void)
{
    memcpy(y, c, (size_t)n * sizeof *y);
    rk->axpy(y, 0.7f, a, n);
    for (int64_t i = 0; i < n; i++) { /* a product and a sum are rounded, or (fused) the sum alone */
        double product = 0.7f * (double)a[i], want = (double)c[i] + product;
        check(y[i], want, EPS * (fabs(product) + fabs(want)) * 1.001, "axpy");
    }
    memcpy(y, c, (size_t)n * sizeof *y);
    memcpy(z, c, (size_t)n * sizeof *z);
    rk->axpys(y, d, a, 3, 4, n > 9 ? n - 9 : 1); /* rows that overlap: they are only read */
    for (int p = 0; p < 4; p++)
        rk->axpy(z, d[p], a + 3 * p, n > 9 ? n - 9 : 1);
    assert_same_bits(y, z, (size_t)n * sizeof *y, "axpys and axpy");
    memcpy(y, c, (size_t)n * sizeof *y);
    rk->add(y, a, n);
    for (int64_t i = 0; i < n; i++)
        assert_true(y[i] == c[i] + a[i]);
    rk->scale(y, 0.3f, n);
    for (int64_t i = 0; i < n; i++)
        assert_true(y[i] == (c[i] + a[i]) * 0.3f);
    check_same(y, "add and scale");
}

static void one_max(void)
{
    for (int64_t at = 0; at < n; at++) { /* the largest value at every place, below and above zero */
        float old = a[at];
        a[at] = 4;
        assert_true(rk->max(a, n) == 4);
        a[at] = old;
    }
    float want = a[0] - 10;
    for (int64_t i = 0; i < n; i++) {
        b[i] = a[i] - 10;
        want = b[i] > want ? b[i] : want;
    }
    assert_true(rk->max(b, n) == want);
}

/* exp by a series: 2e-7 by its own account, and half a unit for rounding the result. The sum adds n / 4 roundings at most. */
static void one_exp_sum(void)
{
    static const float shifts[] = {3, -1, 60};
    for (int k = 0; k < 3; k++) {
        double sum = 0;
        float got = rk->exp_sum(y, a, shifts[k], n);
        for (int64_t i = 0; i < n; i++) {
            double e = exp((double)(a[i] - shifts[k]));
            check(y[i], e, 3e-7 * e, "exp");
            sum += e;
        }
        check(got, sum, (3e-7 + ((double)n / 4 + 16) * EPS) * sum, "sum of exp");
    }
    memcpy(z, a, (size_t)n * sizeof *z);
    rk->exp_sum(z, z, 60, n); /* in place */
    assert_same_bits(z, y, (size_t)n * sizeof *z, "exp in place");
    for (int64_t i = 0; i < n; i++)
        z[i] = i % 2 ? -1000 : -INFINITY;
    rk->exp_sum(z, z, 0, n);
    for (int64_t i = 0; i < n; i++) /* far below: clamped to the smallest normal numbers, as good as zero */
        assert_true(z[i] >= 0 && z[i] < 2e-38f);
}

static void one_rmsnorm(void)
{
    const float eps = 1e-5f;
    double size, mean = dot_reference(a, a, &size) / (double)n, r = 1 / sqrt(mean + (double)eps);
    /* r takes half the sum's error, then a few roundings; y = x r w two more */
    double relative = 0.5 * dot_allowed(size) / size + 6 * EPS;
    check(rk->rmsnorm(y, a, b, eps, n), r, relative * r, "1 / rms");
    for (int64_t i = 0; i < n; i++) {
        double want = (double)a[i] * r * (double)b[i];
        check(y[i], want, (relative + 2 * EPS) * fabs(want), "rmsnorm");
    }
    memcpy(z, a, (size_t)n * sizeof *z);
    rk->rmsnorm(z, z, b, eps, n);
    assert_same_bits(z, y, (size_t)n * sizeof *z, "rmsnorm in place");

    float rf = (float)r;
    double s = 0, s_size = 0, rd = (double)rf, nd = (double)n;
    for (int64_t i = 0; i < n; i++) {
        double t = (double)b[i] * (double)c[i] * (double)a[i];
        s += t;
        s_size += fabs(t);
    }
    memcpy(y, d, (size_t)n * sizeof *y);
    rk->rmsnorm_backward(y, c, a, b, rf, n);
    for (int64_t i = 0; i < n; i++) {
        double u = rd * (double)b[i] * (double)c[i], k = rd * rd * rd / nd * (double)a[i], want = (double)d[i] + u - k * s;
        double allowed = fabs(k) * ((nd / 4 + 24) * EPS * s_size) + 4 * EPS * (fabs(u) + fabs(k * s) + fabs((double)d[i]));
        check(y[i], want, allowed, "rmsnorm backward");
    }
}

static void one_swiglu(void)
{
    a[0] = 80; /* the ends of exp's range */
    a[n - 1] = -80;
    rk->swiglu(y, a, b, n);
    for (int64_t i = 0; i < n; i++) {
        double want = (double)a[i] / (1 + exp(-(double)a[i])) * (double)b[i];
        check(y[i], want, (3e-7 + 6 * EPS) * fabs(want), "swiglu"); /* exp's error, then six operations */
    }
    memcpy(z, a, (size_t)n * sizeof *z);
    rk->swiglu(z, z, b, n);
    assert_same_bits(z, y, (size_t)n * sizeof *z, "swiglu in place");

    rk->swiglu_backward(y, z, c, a, b, n);
    for (int64_t i = 0; i < n; i++) {
        double g = (double)a[i], u = (double)b[i], dy = (double)c[i], s = 1 / (1 + exp(-g));
        double du = dy * g * s, dg = dy * u * s * (1 + g * (1 - s));
        /* 1 + g (1 - s) may cancel, so the error is relative to its parts; 1 - s is off by s's own half unit */
        double parts = fabs(dy * u * s) * (1 + fabs(g) * (1 - s)), slip = fabs(dy * u * s * g) * 2 * EPS;
        check(y[i], dg, (6e-7 + 10 * EPS) * parts + slip, "swiglu backward, gate");
        check(z[i], du, (3e-7 + 6 * EPS) * fabs(du), "swiglu backward, up");
    }
    float dg[MAX_N], du[MAX_N];
    memcpy(dg, c, sizeof dg);
    rk->swiglu_backward(dg, du, dg, a, b, n); /* dg over dy, as the block has it */
    assert_same_bits(dg, y, (size_t)n * sizeof *dg, "swiglu backward in place");
    assert_same_bits(du, z, (size_t)n * sizeof *du, "swiglu backward in place");
}

static void one_rope(void)
{
    int64_t all = n, half = n / 2;
    if (half == 0)
        return;
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int64_t i = 0; i < half; i++) {
            b[i] = (float)cos(c[i]);
            d[i] = (float)sin(c[i]);
        }
        memcpy(y, a, (size_t)all * sizeof *y);
        rk->rope(y, b, d, (float)sign, half);
        for (int64_t i = 0; i < half; i++) {
            double p = (double)a[i], q = (double)a[i + half], co = (double)b[i], si = sign * (double)d[i];
            double size = fabs(p) + fabs(q); /* two products and a sum, or one product and a fused sum */
            check(y[i], p * co - q * si, 2 * EPS * size, "rope, first half");
            check(y[i + half], q * co + p * si, 2 * EPS * size, "rope, second half");
        }
    }
}

static void one_dropout(void)
{
    const uint64_t key = 0xfedcba9876543210;
    const uint32_t at = 4000000000u;
    rk->dropout(y, a, key, at, 0, 1.25f, n); /* threshold 0: nothing is dropped */
    for (int64_t i = 0; i < n; i++)
        assert_true(y[i] == a[i] * 1.25f);
    rk->dropout(y, a, key, at, 1u << 31, 2, n);
    for (int64_t i = 0; i < n; i++)
        assert_true(y[i] == 0 || y[i] == a[i] * 2);
    check_same(y, "dropout"); /* the mask is the same everywhere */
    int64_t cut = n / 3;      /* and does not depend on where the work is cut */
    memcpy(z, a, (size_t)n * sizeof *z);
    rk->dropout(z, z, key, at, 1u << 31, 2, cut);
    rk->dropout(z + cut, z + cut, key, at + (uint32_t)cut, 1u << 31, 2, n - cut);
    assert_same_bits(z, y, (size_t)n * sizeof *z, "dropout in two pieces, in place");
}

static void one_gaussian(void)
{
    rk->gaussian(y, 77, 0.02f, n);
    check_same(y, "gaussian");
    if (n > 1)
        rk->gaussian(z, 77, 0.02f, n - 1); /* where a row ends changes nothing before it */
    assert_same_bits(z, y, (size_t)(n - 1) * sizeof *z, "gaussian, shorter");
}

static void dot(void **state)
{
    (void)state;
    on_all(one_dot);
}

static void elementwise(void **state)
{
    (void)state;
    on_all(one_elementwise);
}

static void largest(void **state)
{
    (void)state;
    on_all(one_max);
}

static void exponentials(void **state)
{
    (void)state;
    on_all(one_exp_sum);
}

static void rmsnorm(void **state)
{
    (void)state;
    on_all(one_rmsnorm);
}

static void swiglu(void **state)
{
    (void)state;
    on_all(one_swiglu);
}

static void rope(void **state)
{
    (void)state;
    on_all(one_rope);
}

/* Beside the mask: its rate, and that keys and places give masks of their own. */
static void dropout(void **state)
{
    enum { MANY = 100000 };
    float *x = floats(MANY), *p = floats(MANY), *q = floats(MANY);
    int64_t zeros = 0, agree = 0;
    (void)state;
    on_all(one_dropout);
    for (int64_t i = 0; i < MANY; i++)
        x[i] = 1;
    rows_portable.dropout(p, x, 1, 0, 214748364u, 1, MANY); /* 0.05 */
    for (int64_t i = 0; i < MANY; i++)
        zeros += p[i] == 0;
    assert_true(llabs(zeros - 5000) < 5 * 69); /* five standard deviations of a binomial */
    rows_portable.dropout(p, x, 1, 0, 1u << 31, 1, MANY);
    rows_portable.dropout(q, x, 1ull << 40, 0, 1u << 31, 1, MANY);
    for (int64_t i = 0; i < MANY; i++)
        agree += p[i] == q[i];
    assert_true(llabs(agree - MANY / 2) < 5 * 158);
    free(x);
    free(p);
    free(q);
}

static int by_size(const void *p, const void *q)
{
    float u = *(const float *)p, v = *(const float *)q;
    return (u > v) - (u < v);
}

/* Beside the bits: moments, the distribution (Kolmogorov and Smirnov's distance), and that neighbours, keys and the two numbers of
 * a pair have nothing to do with each other. Bounds are five standard errors, and for the distance a probability of 1e-6. */
static void gaussian(void **state)
{
    enum { MANY = 1 << 18 };
    float *p = floats(MANY), *q = floats(MANY);
    double sum[5] = {0}, with_next = 0, with_pair = 0, with_key = 0, far = 0, error = 1 / sqrt((double)MANY);
    (void)state;
    on_all(one_gaussian);
    levels[n_levels - 1]->gaussian(p, 0x123456789abcdef, 1, MANY);
    levels[n_levels - 1]->gaussian(q, 0x123456789abcdf0, 1, MANY);
    for (int64_t i = 0; i < MANY; i++) {
        double v = (double)p[i];
        for (int k = 1; k < 5; k++)
            sum[k] += pow(v, k) / MANY;
        with_key += v * (double)q[i] / MANY;
        with_next += v * (double)p[(i + 1) % MANY] / MANY;
        with_pair += v * (double)p[i ^ 16] / MANY;
    }
    assert_true(fabs(sum[1]) < 5 * error && fabs(sum[2] - 1) < 5 * sqrt(2) * error);
    assert_true(fabs(sum[3]) < 5 * sqrt(15) * error && fabs(sum[4] - 3) < 5 * sqrt(96) * error);
    assert_true(fabs(with_key) < 5 * error && fabs(with_next) < 5 * error && fabs(with_pair) < 5 * sqrt(2) * error);
    qsort(p, MANY, sizeof *p, by_size);
    for (int64_t i = 0; i < MANY; i++) {
        double below = 0.5 * erfc(-(double)p[i] / sqrt(2)), distance = fabs(below - ((double)i + 0.5) / MANY);
        far = distance > far ? distance : far;
    }
    assert_true(far < 2.7 * error);
    assert_true(p[MANY - 1] > 3.9f && p[MANY - 1] < 6); /* the largest of so many: 4.4 give or take */
    free(p);
    free(q);
}

/* ---- decoding ---- */

static uint16_t half_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static double f8_value(uint8_t code)
{
    int e = code >> 3 & 15, m = code & 7;
    double v = (code & 0x7f) == 0x7f ? (double)NAN : e ? ldexp(8 + m, e - 10) : ldexp(m, -9);
    return code & 0x80 ? -v : v;
}

/* Value i of a row by the definition in dtype.h, in double; q4_1's one rounded sum is rounded here too. */
static double decode_reference(const uint8_t *row, int64_t i, enum dtype t)
{
    const uint8_t *block = row + i / 32 * dtype_table[t].block_bytes;
    int j = (int)(i % 32);
    float f;
    switch (t) {
    case DTYPE_F32: memcpy(&f, row + 4 * i, 4); return (double)f;
    case DTYPE_F16: return half_value(half_at(row + 2 * i));
    case DTYPE_BF16: return bf16_value(half_at(row + 2 * i));
    case DTYPE_F8_E4M3: return f8_value(row[i]);
    case DTYPE_Q8_0: return half_value(half_at(block)) * (int8_t)block[2 + j];
    case DTYPE_Q4_0: return half_value(half_at(block)) * ((block[2 + j % 16] >> (j < 16 ? 0 : 4) & 15) - 8);
    case DTYPE_Q4_1:
        j = block[4 + j % 16] >> (j < 16 ? 0 : 4) & 15;
        return (double)(float)(half_value(half_at(block)) * j + half_value(half_at(block + 2)));
    default: return (double)NAN;
    }
}

/* Random bytes as a row of n values; small floats are kept finite and large ones of a usual size. */
static void random_row(uint8_t *row, enum dtype t, struct rng *rng)
{
    size_t bytes = dtype_bytes(t, n);
    for (size_t i = 0; i < bytes; i++)
        row[i] = (uint8_t)rng_u32(rng);
    if (t == DTYPE_F32 || t == DTYPE_BF16)
        for (size_t i = dtype_table[t].block_bytes - 1; i < bytes; i += dtype_table[t].block_bytes)
            row[i] = (uint8_t)((row[i] & 0x80) | 0x3f);
    for (size_t i = 0; i < bytes && t >= DTYPE_Q8_0; i += dtype_table[t].block_bytes) {
        row[i + 1] &= 0xbb; /* clears a bit of the exponent: never infinite */
        row[i + 3] &= t == DTYPE_Q4_1 ? 0xbb : 0xff;
    }
    for (size_t i = 1; i < bytes && t == DTYPE_F16; i += 2)
        row[i] &= 0xbb;
    for (size_t i = 0; i < bytes && t == DTYPE_F8_E4M3; i++)
        row[i] ^= (row[i] & 0x7f) == 0x7f;
}

/* Several x at once, however many, give the bits of one at a time, and so do the floats that the rows were decoded to. */
static void check_many(enum dtype t, const void *const at[4])
{
    enum { MOST = LINEAR_FEW_ROWS + 3 };
    static float w[4 * MAX_N], x[MOST * MAX_N], got[MOST + 1][5];
    const void *const decoded[4] = {w, w + n, w + 2 * n, w + 3 * n};
    const float *const from[3] = {a, b, c};
    for (int r = 0; r < 4; r++)
        rk->decode[t](w + r * n, at[r], n);
    for (int i = 0; i < MOST; i++)
        memcpy(x + i * n, from[i % 3], (size_t)n * sizeof *x);
    for (int m = 1; m <= MOST; m += m < 9 ? 1 : 13) {
        float want[4];
        for (int i = 0; i <= MOST; i++)
            for (int r = 0; r < 5; r++)
                got[i][r] = 12345;
        rk->dot4[t](got[0], 5, at, x, m, n, at);
        for (int i = 0; i < m; i++) {
            rk->dot4[t](want, 4, at, from[i % 3], 1, n, at);
            assert_same_bits(got[i], want, sizeof want, "one of several");
            rk->dot4[DTYPE_F32](want, 4, decoded, from[i % 3], 1, n, decoded);
            assert_same_bits(got[i], want, sizeof want, "of decoded rows");
            assert_true(got[i][4] == 12345);
        }
        for (int r = 0; r < 5; r++)
            assert_true(got[m][r] == 12345);
    }
}

static void check_dtype(enum dtype t)
{
    static uint8_t rows[4][MAX_N * 4 + 1];
    const void *at[4];
    struct rng rng;
    rng_seed(&rng, (uint64_t)n);
    for (int r = 0; r < 4; r++) {
        random_row(rows[r] + 1, t, &rng); /* from an odd address: files promise no alignment */
        at[r] = rows[r] + 1;
    }
    rk->decode[t](y, at[0], n);
    for (int64_t i = 0; i < n; i++)
        if ((double)y[i] != decode_reference(at[0], i, t)) /* exact in every format and at every level */
            fail_msg("%s decoded by %s, n = %lld, value %lld: %.9g, expected %.9g", dtype_table[t].name, rk->isa, (long long)n,
                     (long long)i, (double)y[i], decode_reference(at[0], i, t));
    float got[5] = {0, 0, 0, 0, 12345};
    rk->dot4[t](got, 4, at, a, 1, n, at);
    assert_true(got[4] == 12345);
    check_many(t, at);
    for (int r = 0; r < 4; r++) {
        double s = 0, size = 0;
        for (int64_t i = 0; i < n; i++) {
            double term = decode_reference(at[r], i, t) * (double)a[i];
            s += term;
            size += fabs(term);
        }
        check(got[r], s, dot_allowed(size), dtype_table[t].name); /* 32 running sums at every level: more than dot's 8 */
    }
}

static void one_decode(void)
{
    check_dtype(DTYPE_F32);
    check_dtype(DTYPE_F16);
    check_dtype(DTYPE_BF16);
    check_dtype(DTYPE_F8_E4M3);
    int64_t all = n;
    for (int t = DTYPE_Q8_0; t < DTYPE_COUNT; t++) {
        n = (all + 31) / 32 * 32; /* whole blocks only */
        check_dtype((enum dtype)t);
    }
}

/* Every byte of f8_e4m3, with the sign of its zeros; where a weight is no number, the dot product is none either. */
static void every_f8(void **state)
{
    (void)state;
    uint8_t bytes[256], row[64];
    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    for (int k = 0; k < n_levels; k++) {
        levels[k]->decode[DTYPE_F8_E4M3](y, bytes, 256);
        for (int i = 0; i < 256; i++) {
            double want = f8_value((uint8_t)i);
            if (isnan(want) ? !isnan(y[i]) : (double)y[i] != want || !signbit(y[i]) != !signbit(want))
                fail_msg("%s: byte %02x became %g, expected %g", levels[k]->isa, i, (double)y[i], want);
        }
        for (int at = 0; at < 64; at++) {
            float got[4];
            memset(row, 0x38, sizeof row);
            row[at] = at & 1 ? 0x7f : 0xff;
            const void *const of[] = {row, bytes, row, bytes};
            levels[k]->dot4[DTYPE_F8_E4M3](got, 4, of, a, 1, 64, of);
            assert_true(isnan(got[0]) && isfinite(got[1]) && isnan(got[2]));
        }
    }
}

static void decoding(void **state)
{
    (void)state;
    on_all(one_decode);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dot),      cmocka_unit_test(elementwise), cmocka_unit_test(largest),  cmocka_unit_test(exponentials),
        cmocka_unit_test(rmsnorm),  cmocka_unit_test(swiglu),      cmocka_unit_test(rope),     cmocka_unit_test(dropout),
        cmocka_unit_test(decoding), cmocka_unit_test(every_f8),    cmocka_unit_test(gaussian),
    };
    return cmocka_run_group_tests(tests, find_levels, NULL);
}
