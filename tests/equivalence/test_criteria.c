/* Criteria by a second path: searches and sweeps against plain removal, one walk against several, halves of blocks against their
 * zeroed weights, closed forms against formulas in float64, and interrupted scorings against uninterrupted ones. */
#include "tests/fixtures/scoring.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/model/save.h"
#include "prune/plan.h"
#include "prune/repair.h"

/* Losses of the same arithmetic in other batches. */
#define TOL 2e-6

static struct calibration fixture_rows(const struct fixture *f)
{
    return (struct calibration){.n = f->n, .len = f->len, .ids = f->ids};
}

/* Perplexity of the model as it stands, by a plain forward. */
static double plain_ppl(const struct fixture *f, const struct model *m, const struct calibration *cal)
{
    struct lm lm;
    int64_t n = cal->n * (cal->len - 1);
    float *nll = calloc((size_t)n, sizeof *nll);
    double sum = 0;
    assert_non_null(nll);
    OK(lm_open(&lm, m, &f->c, NULL, cal->n * cal->len, cal->n, cal->len, &err));
    OK(lm_window_nll(&lm, nll, cal->ids, cal->n, cal->len, &err));
    for (int64_t i = 0; i < n; i++)
        sum += (double)nll[i];
    lm_close(&lm);
    free(nll);
    return exp(sum / (double)n);
}

/* Greedy removal done by hand: every candidate of every step on its own. */
static void greedy_is_plain_search(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    for (int sublayers = 0; sublayers < 2; sublayers++) {
        struct scores s;
        struct score_options o = default_scoring;
        o.sublayers = sublayers;
        o.count = sublayers ? 3 : 2;
        score_by(&s, "greedy", &o, &f->m, &f->c, NULL, &cal);
        assert_int_equal(s.steps, o.count);
        for (int64_t step = 0; step < s.steps; step++) {
            int64_t best = -1;
            for (int64_t i = 0; i < s.n; i++) {
                double given = s.candidates[step * s.n + i];
                if (s.score[i] <= (double)step) { /* gone in an earlier step */
                    assert_true(isnan(given));
                    continue;
                }
                OK(model_drop(&f->m, &s.unit[i], 1, &err));
                assert_near(given, plain_ppl(f, &f->m, &cal), TOL, "perplexity of a candidate");
                model_restore(&f->m);
                for (int64_t k = 0; k < s.n; k++)
                    if (s.score[k] <= (double)step)
                        OK(model_drop(&f->m, &s.unit[k], 1, &err));
                if (best < 0 || given < s.candidates[step * s.n + best])
                    best = i;
            }
            assert_true(s.score[best] == (double)(step + 1));
            assert_true(s.trace[step] == s.candidates[step * s.n + best]);
            OK(model_drop(&f->m, &s.unit[best], 1, &err));
        }
        model_restore(&f->m);
        scores_free(&s);
    }
}

/* The greedy search keeps its hands off the protected ends, and its file ranks what it did not reach behind what it did. */
static void greedy_with_protected_ends(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    struct scores s;
    struct score_options o = default_scoring;
    int64_t order[16];
    o.count = 1;
    o.keep_first = 1;
    o.keep_last = 1;
    score_by(&s, "greedy", &o, &f->m, &f->c, NULL, &cal);
    scores_order(order, &s);
    assert_true(order[0] >= 1 && order[0] < s.n - 1);
    assert_true(isnan(s.candidates[0]) && isnan(s.candidates[s.n - 1]));
    for (int64_t i = 0; i < s.n; i++)
        assert_true(s.score[order[i]] == (double)(i + 1));
    scores_free(&s);
    struct err err = {0};
    const struct criterion *k = criterion_find("greedy", &err);
    o.count = f->m.n_order - 1;
    assert_int_equal(score_run(&s, &k, 1, &o, &f->m, &f->c, NULL, &cal, NULL, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "--count"));
}

/* Several criteria from one walk are those of a walk each, bit for bit. */
static void together_is_apart(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"ppl", "bi", "greedy", "angular", "relative-magnitude", "cka", "magnitude", "random"};
    enum { N = sizeof names / sizeof *names };
    struct calibration cal = fixture_rows(f);
    const struct criterion *which[N];
    struct scores together[N];
    struct score_options o = default_scoring;
    o.count = 2;
    for (int i = 0; i < N; i++) {
        struct err none = {0};
        which[i] = criterion_find(names[i], &none);
    }
    OK(score_run(together, which, N, &o, &f->m, &f->c, NULL, &cal, NULL, NULL, &err));
    for (int i = 0; i < N; i++) {
        struct scores alone;
        score_by(&alone, names[i], &o, &f->m, &f->c, NULL, &cal);
        assert_same_bits(together[i].score, alone.score, (size_t)alone.n * sizeof *alone.score, names[i]);
        assert_true(together[i].base_ppl == alone.base_ppl);
        scores_free(&alone);
        scores_free(&together[i]);
    }
}

/* A half that does not run is a half whose output projection is zero: scored so, dropped so, and saved so for other programs. */
static void halves_are_zeroed_outputs(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    struct scores s;
    struct score_options o = default_scoring;
    struct save_options save = {.dtype = DTYPE_F32};
    o.sublayers = true;
    score_by(&s, "ppl", &o, &f->m, &f->c, NULL, &cal);
    assert_int_equal(s.n, 2 * f->m.cfg.n_blocks);
    for (int64_t i = 0; i < s.n; i++) {
        struct model m;
        char dir[128], name[UNIT_NAME];
        const struct source *src = &m.src;
        OK(model_drop(&f->m, &s.unit[i], 1, &err));
        assert_near(plain_ppl(f, &f->m, &cal), s.score[i], TOL, "half out");
        scratch_dir(dir, f, unit_name(name, s.unit[i]));
        OK(model_save(&f->m, &f->c, dir, &save, NULL, &err));
        OK(model_open(&m, dir, &err));
        char tensor[160];
        snprintf(tensor, sizeof tensor, "model.layers.%lld.%s.weight", (long long)s.unit[i].block,
                 proj_names[s.unit[i].parts == PART_ATTN ? PROJ_O : PROJ_DOWN]);
        const struct tensor *t = source_find(src, tensor);
        for (size_t k = 0; k < t->bytes; k++)
            assert_int_equal(t->data[k], 0);
        assert_int_equal(m.blocks[s.unit[i].block].parts, PARTS_ALL & ~s.unit[i].parts);
        assert_int_equal(m.n_order, f->m.cfg.n_blocks);
        assert_int_equal(model_params(&m), model_params(&f->m));
        assert_near(plain_ppl(f, &m, &cal), s.score[i], TOL, "half out, saved");
        m.blocks[s.unit[i].block].parts = PARTS_ALL; /* as another program runs it */
        assert_near(plain_ppl(f, &m, &cal), s.score[i], TOL, "half out, zeros run");
        model_close(&m);
        model_restore(&f->m);
    }
    scores_free(&s);
}

/* ---- reductions ---- */

static double reduced(const double *v, int64_t n, enum reduction r)
{
    double sum = 0, product = 1, most = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += v[i];
        product *= v[i];
        most = fmax(most, v[i]);
    }
    return r == REDUCE_SUM ? sum : r == REDUCE_MEAN ? sum / (double)n : r == REDUCE_MAX ? most : product;
}

/* One tensor: |w|^power summed over each row's inputs, the rows reduced. A norm has one row a value. */
static double naive_tensor(const struct fixture *f, const struct weight *w, const float *norm, int64_t power, enum reduction r)
{
    int64_t rows = w ? w->rows : f->m.cfg.dim, cols = w ? w->cols : 1;
    double sums[256] = {0};
    float row[256];
    assert_true(rows <= 256 && cols <= 256);
    for (int64_t i = 0; i < rows; i++) {
        if (w)
            weight_decode(&f->c, row, w, i, 1);
        for (int64_t k = 0; k < cols; k++)
            sums[i] += pow(fabs(w ? (double)row[k] : (double)norm[i]), (double)power);
    }
    return reduced(sums, rows, r);
}

/* Every pair of reductions and both powers; Taylor's scores take the same way from products with gradients. Powers are of float32
 * numbers squared in float32: 2e-7 each. */
static void reductions_by_formula(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    for (int way = 0; way < 32; way++) {
        struct scores s;
        struct score_options o = default_scoring;
        o.weights = (struct weight_options){1 + way / 16, (enum reduction)(way / 4 % 4), (enum reduction)(way % 4), 1};
        score_by(&s, "magnitude", &o, &f->m, &f->c, NULL, &cal);
        for (int64_t b = 0; b < s.n; b++) {
            const struct block *block = &f->m.blocks[b];
            double v[PROJ_COUNT + 2];
            for (int p = 0; p < PROJ_COUNT; p++)
                v[p] = naive_tensor(f, &block->proj[p], NULL, o.weights.norm_power, o.weights.rows);
            v[PROJ_COUNT] = naive_tensor(f, NULL, block->norm_attn, o.weights.norm_power, o.weights.rows);
            v[PROJ_COUNT + 1] = naive_tensor(f, NULL, block->norm_ffn, o.weights.norm_power, o.weights.rows);
            double want = reduced(v, PROJ_COUNT + 2, o.weights.tensors), off = fabs(s.score[b] - want);
            if (!(off <= 1e-5 * fabs(want))) /* products of up to 256 roundings of 1e-7 */
                fail_msg("way %d, block %lld: %g, expected %g", way, (long long)b, s.score[b], want);
        }
        scores_free(&s);
    }
}

/* More calibration than there is memory is refused before any of it is touched. */
static void too_much_calibration(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"ppl", "bi", "taylor"};
    struct calibration cal = {.n = 1 << 20, .len = 1 << 14};
    for (int i = 0; i < 3; i++) {
        struct scores s;
        struct err err = {0};
        const struct criterion *k = criterion_find(names[i], &err);
        assert_int_equal(score_run(&s, &k, 1, &default_scoring, &f->m, &f->c, NULL, &cal, NULL, NULL, &err), -1);
        assert_non_null(strstr(err.msg, "are free"));
    }
}

/* ---- formulas in float64, from the streams ---- */

/* streams [n_blocks + 1][rows, dim] */
static float *all_streams(const struct fixture *f, const struct calibration *cal)
{
    struct lm lm;
    int64_t rows = cal->n * cal->len, n = rows * f->m.cfg.dim;
    float *x = calloc((size_t)((f->m.n_order + 1) * n), sizeof *x);
    assert_non_null(x);
    OK(lm_open(&lm, &f->m, &f->c, NULL, rows, cal->n, cal->len, &err));
    batch_uniform(&lm.batch, cal->n, cal->len);
    OK(lm_embed(&lm, x, cal->ids, rows, &err));
    for (int64_t k = 0; k < f->m.n_order; k++)
        lm_block(&lm, x + (k + 1) * n, x + k * n, k, PARTS_ALL);
    lm_close(&lm);
    return x;
}

/* |A^T B|^2 of column-centred A, B [rows, dim], element by element. */
static double naive_cross(const float *a, const float *b, int64_t rows, int64_t dim)
{
    double total = 0;
    for (int64_t p = 0; p < dim; p++)
        for (int64_t q = 0; q < dim; q++) {
            double mean_a = 0, mean_b = 0, sum = 0;
            for (int64_t i = 0; i < rows; i++) {
                mean_a += (double)a[i * dim + p] / (double)rows;
                mean_b += (double)b[i * dim + q] / (double)rows;
            }
            for (int64_t i = 0; i < rows; i++)
                sum += ((double)a[i * dim + p] - mean_a) * ((double)b[i * dim + q] - mean_b);
            total += sum * sum;
        }
    return total;
}

static void similarities_by_formula(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    struct scores cka, magnitude;
    int64_t rows = cal.n * cal.len, dim = f->m.cfg.dim;
    float *x = all_streams(f, &cal);
    score_by(&cka, "cka", &default_scoring, &f->m, &f->c, NULL, &cal);
    score_by(&magnitude, "relative-magnitude", &default_scoring, &f->m, &f->c, NULL, &cal);
    for (int64_t k = 0; k < f->m.n_order; k++) {
        const float *a = x + k * rows * dim, *b = a + rows * dim;
        double mean = 0;
        for (int64_t i = 0; i < rows; i++) {
            double change = 0, norm = 0;
            for (int64_t p = i * dim; p < (i + 1) * dim; p++) {
                change += pow((double)b[p] - (double)a[p], 2);
                norm += pow((double)b[p], 2);
            }
            mean += sqrt(change) / sqrt(norm) / (double)rows;
        }
        assert_near(magnitude.score[k], mean, 1e-12, "relative magnitude");
        double both = sqrt(naive_cross(a, a, rows, dim)) * sqrt(naive_cross(b, b, rows, dim));
        assert_near(cka.score[k], 1 - naive_cross(b, a, rows, dim) / both, 1e-9, "cka");
    }
    free(x);
    scores_free(&cka);
    scores_free(&magnitude);
}

/* Windows: the scores put the closest one first, and a plan takes the closest that the ends leave. */
static void angular_proposes_a_window(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    for (int all = 0; all < 2; all++) {
        struct scores s;
        struct score_options o = default_scoring;
        struct unit dropped[16];
        int64_t order[16], best = 0;
        o.count = 2;
        o.all_tokens = all;
        score_by(&s, "angular", &o, &f->m, &f->c, NULL, &cal);
        for (int64_t i = 1; i + 2 <= s.n; i++)
            if (s.distance[2 * s.n + i] < s.distance[2 * s.n + best])
                best = i;
        scores_order(order, &s);
        assert_true((order[0] == best && order[1] == best + 1));
        OK(plan_choose(dropped, &s, 1, 0, 0, &err)); /* another length than the proposed one */
        for (int64_t i = 0; i < s.n; i++)
            assert_true(s.distance[s.n + dropped[0].block] <= s.distance[s.n + i]);
        OK(plan_choose(dropped, &s, 1, s.n - 1, 0, &err));
        assert_int_equal(dropped[0].block, s.n - 1);
        scores_free(&s);
    }
}

/* ---- repair ---- */

/* Losses of the normal equations in float64, solved here by elimination: T for the run behind block 0. */
static void solve_naively(double *t, const double *gram, const double *cross, int64_t n)
{
    double *g = calloc((size_t)(n * n), sizeof *g);
    assert_non_null(g);
    memcpy(g, gram, (size_t)(n * n) * sizeof *g);
    memcpy(t, cross, (size_t)(n * n) * sizeof *t);
    for (int64_t p = 0; p < n; p++)
        for (int64_t i = 0; i < n; i++) {
            if (i == p)
                continue;
            double factor = g[i * n + p] / g[p * n + p];
            for (int64_t k = 0; k < n; k++) {
                g[i * n + k] -= factor * g[p * n + k];
                t[i * n + k] -= factor * t[p * n + k];
            }
        }
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < n; k++)
            t[i * n + k] /= g[i * n + i];
    free(g);
}

/* The repaired model's stream behind the cut is r + m T with T by the formula. */
static void repair_is_the_closed_form(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    struct unit gone = {1, PARTS_ALL};
    const double alpha = 1e-3;
    int64_t rows = cal.n * cal.len, dim = f->m.cfg.dim, runs;
    size_t square = (size_t)(dim * dim);
    float *x = all_streams(f, &cal), *repaired = calloc((size_t)(rows * dim), sizeof *repaired);
    double *gram = calloc(square, sizeof *gram), *cross = calloc(square, sizeof *cross), *t = calloc(square, sizeof *t);
    double *m = calloc((size_t)(rows * dim), sizeof *m), *r = calloc((size_t)(rows * dim), sizeof *r);
    struct lm lm;
    assert_true(repaired && gram && cross && t && m && r);
    OK(lm_open(&lm, &f->m, &f->c, NULL, rows, cal.n, cal.len, &err));
    batch_uniform(&lm.batch, cal.n, cal.len);
    lm_block(&lm, repaired, x, 0, PART_ATTN); /* the stream between the halves of block 0 */
    for (int64_t i = 0; i < rows * dim; i++) {
        r[i] = (double)repaired[i];
        m[i] = (double)x[rows * dim + i] - r[i];
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t p = 0; p < dim; p++)
            for (int64_t q = 0; q < dim; q++) {
                gram[p * dim + q] += m[i * dim + p] * m[i * dim + q];
                cross[p * dim + q] += m[i * dim + p] * ((double)x[2 * rows * dim + i * dim + q] - r[i * dim + q]);
            }
    for (int64_t p = 0; p < dim; p++)
        gram[p * dim + p] += alpha;
    solve_naively(t, gram, cross, dim);
    OK(repair_linear(&f->m, &f->c, &gone, 1, &cal, alpha, &runs, NULL, &err));
    assert_int_equal(runs, 1);
    lm_block(&lm, repaired, x, 0, PARTS_ALL);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t q = 0; q < dim; q++) {
            double want = r[i * dim + q];
            for (int64_t p = 0; p < dim; p++)
                want += m[i * dim + p] * t[p * dim + q];
            /* m is the difference of two float32 sums, and T amplifies what that loses */
            assert_true(fabs((double)repaired[i * dim + q] - want) < 1e-3 * (1 + fabs(want)));
        }
    lm_close(&lm);
    free(x), free(repaired), free(gram), free(cross), free(t), free(m), free(r);
}

static void repair_refuses(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    static const struct {
        struct unit gone;
        const char *says;
    } cases[] = {{{0, PARTS_ALL}, "no block before"}, {{1, PART_FFN}, "halves"}};
    for (size_t i = 0; i < 2; i++) {
        struct err err = {0};
        int64_t runs;
        assert_int_equal(repair_linear(&f->m, &f->c, &cases[i].gone, 1, &cal, 1, &runs, NULL, &err), -1);
        assert_non_null(strstr(err.msg, cases[i].says));
    }
}

/* ---- interrupted and resumed ---- */

static const char *const resumable[] = {"greedy", "taylor"};

static void score_with_partial(struct scores *s, struct fixture *f, int what, const char *path, bool resume, double every)
{
    struct calibration cal = fixture_rows(f);
    struct err none = {0};
    const struct criterion *which[] = {criterion_find(resumable[what], &none), criterion_find("ppl", &none),
                                       criterion_find("bi", &none)};
    struct partial p = {.path = path, .resume = resume, .every = every, .key = "k"};
    struct score_options o = default_scoring;
    o.count = 2;
    o.sublayers = true;
    OK(score_run(s, which, what == 1 ? 1 : 3, &o, &f->m, &f->c, NULL, &cal, &p, NULL, &err));
}

static long long file_number(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (long long)st.st_ino * 1000000007LL + st.st_mtim.tv_nsec : 0;
}

/* A child scores and saves after every unit; it is killed behind its k-th save, and the work is taken up from there. */
static void killed_and_resumed(void **state)
{
    struct fixture *f = *state;
    char path[128];
    int taken_up = 0;
    snprintf(path, sizeof path, "%s/partial", f->scratch);
    for (int what = 0; what < 2; what++) {
        struct scores whole[3], again[3];
        int n = what == 1 ? 1 : 3;
        score_with_partial(whole, f, what, NULL, false, 1e9);
        for (int saves = 1; saves < 24; saves += 2) {
            unlink(path);
            pid_t child = fork();
            if (child == 0) {
                score_with_partial(again, f, what, path, false, 0);
                _exit(0);
            }
            long long seen = 0;
            for (int left = saves; left > 0 && waitpid(child, NULL, WNOHANG) == 0;) {
                long long now = file_number(path);
                left -= now && now != seen;
                seen = now ? now : seen;
            }
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
            taken_up += access(path, F_OK) == 0;
            score_with_partial(again, f, what, path, true, 1e9);
            for (int i = 0; i < n; i++) {
                assert_same_bits(again[i].score, whole[i].score, (size_t)whole[i].n * sizeof *whole[i].score, resumable[what]);
                assert_true(again[i].base_ppl == whole[i].base_ppl);
                if (whole[i].removed_nll)
                    assert_same_bits(again[i].removed_nll, whole[i].removed_nll,
                                     (size_t)(whole[i].n * whole[i].samples * whole[i].targets) * sizeof(float), "losses");
                scores_free(&again[i]);
            }
        }
        for (int i = 0; i < n; i++)
            scores_free(&whole[i]);
    }
    assert_true(taken_up > 4); /* else nothing was tested */
}

static void a_strange_partial_is_refused(void **state)
{
    struct fixture *f = *state;
    struct calibration cal = fixture_rows(f);
    char path[128];
    struct err none = {0};
    struct scores s;
    const struct criterion *k = criterion_find("ppl", &none);
    snprintf(path, sizeof path, "%s/strange", f->scratch);
    struct partial p = {.path = path, .every = 0, .key = "a"};
    OK(score_run(&s, &k, 1, &default_scoring, &f->m, &f->c, NULL, &cal, &p, NULL, &err)); /* leaves its last save */
    scores_free(&s);
    struct err err = {0};
    p.resume = true;
    strcpy(p.key, "b");
    assert_int_equal(score_run(&s, &k, 1, &default_scoring, &f->m, &f->c, NULL, &cal, &p, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "begun with another"));
    assert_int_equal(truncate(path, 300), 0);
    strcpy(p.key, "a");
    err = (struct err){0};
    assert_int_equal(score_run(&s, &k, 1, &default_scoring, &f->m, &f->c, NULL, &cal, &p, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "damaged"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(greedy_is_plain_search),    ON_BOTH(greedy_with_protected_ends),
        ON_BOTH(together_is_apart),         ON_BOTH(halves_are_zeroed_outputs),
        ON_BOTH(reductions_by_formula),     ON_BOTH(too_much_calibration),
        ON_BOTH(similarities_by_formula),   ON_BOTH(angular_proposes_a_window),
        ON_BOTH(repair_is_the_closed_form), ON_BOTH(repair_refuses),
        ON_BOTH(killed_and_resumed),        ON_BOTH(a_strange_partial_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
