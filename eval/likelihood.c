#include "eval/likelihood.h"

#include <stdlib.h>
#include <string.h>

enum {
    BATCH_ROWS = 2048,
    MIN_SHARED = 4, /* fewer rows in common are run again: attention to one more piece of the tree costs as much */
};

/* A sequence on the path from the root of the tree to the row that was laid out last. */
struct step {
    int64_t seq, begin; /* number in the batch; depth of its first row */
};

/* A token to be scored, and the row that predicts it. */
struct pair {
    int32_t row, target;
};

struct run {
    struct lm lm;
    struct arena arena;
    const struct variants *variants;
    const struct request *requests;
    int64_t *order; /* [n]: requests in the order of their tokens, so that neighbours have most in common */
    int64_t n;
    struct likelihood *out; /* [variants, n] */

    /* the batch: requests order[begin .. end) */
    int64_t begin, end;
    int32_t *ids; /* [max_rows] */
    struct pair *pairs;
    int64_t n_pairs, max_pairs;
    int32_t *refs; /* the pairs of each request, one request after another */
    int64_t n_refs, max_refs;

    /* the path; depth is the position in a text */
    const struct request *last; /* ends it; NULL: the batch is empty */
    struct step *path;
    int64_t n_path;
    int32_t *row_at, *pair_at; /* [longest]: by depth, the row of the token and the pair that scores it (-1: none) */

    float **streams; /* [variants] of [max_rows, dim]; the first is lm.x, and few of the others are ever written, see walk */
    void *reserved;
    size_t reserved_bytes;
    float *packed; /* [max_rows, dim] */
    int32_t *targets;
    float *nll; /* [max_pairs] */
    bool *greedy;
};

/* ---- laying out a batch ---- */

static int64_t common_start(const struct request *a, const struct request *b)
{
    int64_t i = 0;
    while (i < a->n && i < b->n && a->ids[i] == b->ids[i])
        i++;
    return i;
}

static int by_tokens(const void *x, const void *y, void *arg)
{
    int64_t i = *(const int64_t *)x, k = *(const int64_t *)y;
    const struct request *a = (const struct request *)arg + i, *b = (const struct request *)arg + k;
    int64_t same = common_start(a, b);
    if (same < a->n && same < b->n)
        return a->ids[same] < b->ids[same] ? -1 : 1;
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    return i < k ? -1 : i > k; /* a fixed order, whatever qsort does with equals */
}

static void empty_batch(struct run *r)
{
    batch_clear(&r->lm.batch);
    r->begin = r->end;
    r->n_pairs = r->n_refs = r->n_path = 0;
    r->last = NULL;
}

/* The tokens to be scored become pairs; those of the first `shared` that the request before has scored too are not scored again. */
static void add_pairs(struct run *r, const struct request *q, int64_t shared)
{
    for (int64_t p = shared; p < q->n; p++)
        r->pair_at[p] = -1;
    for (int64_t p = q->first; p < q->n; p++) {
        if (r->pair_at[p] < 0) {
            r->pairs[r->n_pairs] = (struct pair){r->row_at[p - 1], q->ids[p]};
            r->pair_at[p] = (int32_t)r->n_pairs++;
        }
        r->refs[r->n_refs++] = r->pair_at[p];
    }
}

/* Adds a request to the batch, as a branch of what is there. False: there is no room. */
static bool add_request(struct run *r, const struct request *q)
{
    struct batch *b = &r->lm.batch;
    int64_t rows = q->n - 1, scored = q->n - q->first; /* the last token predicts nothing */
    int64_t shared = r->last ? common_start(q, r->last) : 0, depth = shared, n_path = r->n_path;
    if (depth > rows)
        depth = rows;
    if (r->last && depth > r->last->n - 1)
        depth = r->last->n - 1;
    while (n_path > 0 && depth < rows && depth - r->path[n_path - 1].begin < MIN_SHARED) {
        if (depth > r->path[--n_path].begin)
            depth = r->path[n_path].begin;
    }
    int64_t fresh = rows - depth;
    if (b->rows + fresh > b->max_rows || r->n_pairs + scored > r->max_pairs || r->n_refs + scored > r->max_refs)
        return false;
    r->n_path = n_path;
    if (fresh > 0) {
        for (int64_t p = depth; p < rows; p++) {
            r->row_at[p] = (int32_t)(b->rows + p - depth);
            r->ids[r->row_at[p]] = q->ids[p];
        }
        r->path[r->n_path++] = (struct step){b->n_seqs, depth};
        if (depth == 0)
            batch_add(b, fresh, 0, NULL);
        else
            batch_branch(b, fresh, r->path[n_path - 1].seq, depth - r->path[n_path - 1].begin);
    }
    add_pairs(r, q, shared);
    r->last = q;
    r->end++;
    return true;
}

/* ---- running it ---- */

/* The losses of all pairs at the end of the model, and of them what each request gets. */
static int score_variant(struct run *r, int64_t variant, const float *x, struct err *err)
{
    int64_t dim = r->lm.m->cfg.dim, max = r->lm.max_rows;
    const struct head_acts *head = &r->lm.head;
    for (int64_t at = 0; at < r->n_pairs; at += max) {
        int64_t n = r->n_pairs - at < max ? r->n_pairs - at : max;
        for (int64_t i = 0; i < n; i++) {
            memcpy(r->packed + i * dim, x + r->pairs[at + i].row * dim, (size_t)dim * sizeof *x);
            r->targets[i] = r->pairs[at + i].target;
        }
        if (lm_nll(&r->lm, r->nll + at, r->packed, r->targets, n, err) != 0)
            return -1;
        for (int64_t i = 0; i < n; i++)
            r->greedy[at + i] = head->target[i] >= head->best[i];
    }
    const int32_t *ref = r->refs;
    for (int64_t i = r->begin; i < r->end; i++) {
        struct likelihood l = {0, true};
        const struct request *q = &r->requests[r->order[i]];
        for (int64_t p = q->first; p < q->n; p++, ref++) {
            l.ll -= (double)r->nll[*ref];
            l.greedy &= r->greedy[*ref];
        }
        r->out[variant * r->n + r->order[i]] = l;
    }
    return 0;
}

static unsigned parts_of(const struct run *r, int64_t variant, int64_t slot)
{
    return r->variants->parts ? r->variants->parts[variant * r->lm.m->n_order + slot] : PARTS_ALL;
}

/* Puts the variants that do at this block what the first one does in front; their number. */
static int64_t gather_alike(const struct run *r, int64_t *list, int64_t n, int64_t slot)
{
    int64_t same = 1;
    for (int64_t i = 1; i < n; i++)
        if (parts_of(r, list[i], slot) == parts_of(r, list[0], slot)) {
            int64_t v = list[i];
            list[i] = list[same];
            list[same++] = v;
        }
    return same;
}

/* Takes the n variants in `list`, which have shared the stream of this level so far, from block `slot` to the end. Where they part,
 * those that differ go on with a copy of the stream on the next level. */
static int walk(struct run *r, int64_t *list, int64_t n, int64_t slot, int64_t level, struct err *err)
{
    float *x = r->streams[level];
    for (; slot < r->lm.m->n_order; slot++) {
        int64_t same = gather_alike(r, list, n, slot);
        if (same < n) {
            memcpy(r->streams[level + 1], x, (size_t)(r->lm.batch.rows * r->lm.m->cfg.dim) * sizeof *x);
            if (walk(r, list + same, n - same, slot, level + 1, err) != 0)
                return -1;
            n = same;
        }
        lm_block(&r->lm, x, x, slot, parts_of(r, list[0], slot));
    }
    for (int64_t i = 0; i < n; i++)
        if (score_variant(r, list[i], x, err) != 0)
            return -1;
    return 0;
}

static int run_batch(struct run *r, struct err *err)
{
    int64_t list[r->variants->n];
    for (int64_t i = 0; i < r->variants->n; i++)
        list[i] = i;
    if (lm_embed(&r->lm, r->lm.x, r->ids, r->lm.batch.rows, err) != 0 || walk(r, list, r->variants->n, 0, 0, err) != 0)
        return -1;
    empty_batch(r);
    return 0;
}

/* ---- buffers ---- */

static int run_open(struct run *r, const struct model *m, const struct compute *c, const struct lora_set *lora, struct err *err)
{
    int64_t longest = 2, total = 0, n_variants = r->variants->n;
    for (int64_t i = 0; i < r->n; i++) {
        longest = r->requests[i].n > longest ? r->requests[i].n : longest;
        total += r->requests[i].n;
    }
    int64_t rows = total < BATCH_ROWS ? total : BATCH_ROWS;
    rows = rows > longest ? rows : longest;
    r->max_pairs = r->max_refs = 4 * rows;
    if (lm_open(&r->lm, m, c, lora, rows, rows, longest, err) != 0)
        return -1;
    struct {
        void *where;
        int64_t n;
        size_t size;
    } row[] = {
        {&r->order, r->n, sizeof *r->order},
        {&r->ids, rows, sizeof *r->ids},
        {&r->pairs, r->max_pairs, sizeof *r->pairs},
        {&r->refs, r->max_refs, sizeof *r->refs},
        {&r->path, longest, sizeof *r->path},
        {&r->row_at, longest, sizeof *r->row_at},
        {&r->pair_at, longest, sizeof *r->pair_at},
        {&r->streams, n_variants, sizeof *r->streams},
        {&r->packed, rows * m->cfg.dim, sizeof(float)},
        {&r->targets, rows, sizeof *r->targets},
        {&r->nll, r->max_pairs, sizeof *r->nll},
        {&r->greedy, r->max_pairs, sizeof *r->greedy},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        if (!(*(void **)row[i].where = arena_alloc(&r->arena, (size_t)row[i].n, row[i].size, err)))
            return -1;
    r->streams[0] = r->lm.x;
    if (n_variants == 1)
        return 0;
    size_t one = (size_t)(rows * m->cfg.dim);
    r->reserved_bytes = (size_t)(n_variants - 1) * one * sizeof(float);
    if (!(r->reserved = mem_reserve(r->reserved_bytes, err)))
        return -1;
    for (int64_t i = 1; i < n_variants; i++)
        r->streams[i] = (float *)r->reserved + (size_t)(i - 1) * one;
    return 0;
}

int likelihood_run(struct likelihood *out, const struct model *m, const struct compute *c, const struct lora_set *lora,
                   const struct variants *v, const struct request *requests, int64_t n, struct progress *progress,
                   int64_t documents, struct err *err)
{
    struct run r = {.variants = v, .requests = requests, .n = n, .out = out};
    int rc = -1;
    if (run_open(&r, m, c, lora, err) != 0)
        goto done;
    for (int64_t i = 0; i < n; i++)
        r.order[i] = i;
    qsort_r(r.order, (size_t)n, sizeof *r.order, by_tokens, (void *)requests);
    empty_batch(&r);
    for (int64_t i = 0; i < n; i++) {
        if (add_request(&r, &requests[r.order[i]]))
            continue;
        if (run_batch(&r, err) != 0)
            goto done;
        progress_update(progress, documents * i / n);
        add_request(&r, &requests[r.order[i]]); /* an empty batch has room for any */
    }
    if (r.end > r.begin && run_batch(&r, err) != 0)
        goto done;
    rc = 0;
done:
    lm_close(&r.lm);
    mem_unreserve(r.reserved, r.reserved_bytes);
    arena_free(&r.arena);
    return rc;
}
