/* What tells two checkpoints of one shape apart. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/file.h"
#include "core/model/model.h"

/* Of a matrix: all of it up to WHOLE bytes; of a larger one PIECES pieces spread evenly, the first and the last bytes among them.
 * The pages are given back: fingerprints cost reading, not memory. */
static void put_weight(struct sha256 *s, const struct model *m, const struct weight *w)
{
    enum { WHOLE = 1 << 20, PIECES = 4, PIECE = 16 << 10 };
    size_t n = (size_t)w->rows * w->row_bytes;
    char head[64];
    sha256_put(
        s, head,
        (size_t)snprintf(head, sizeof head, "%s %lld %lld\n", dtype_table[w->dtype].name, (long long)w->rows, (long long)w->cols));
    if (n <= WHOLE)
        sha256_put(s, w->data, n);
    else
        for (size_t i = 0; i < PIECES; i++)
            sha256_put(s, w->data + (n - PIECE) / (PIECES - 1) * i, PIECE);
    if (w->scale)
        sha256_put(s, w->scale, (size_t)w->rows * sizeof *w->scale);
    source_advise(&m->src, w->data, n, MADV_DONTNEED);
}

static void put_vector(struct sha256 *s, const float *v, int64_t n)
{
    if (v)
        sha256_put(s, v, (size_t)n * sizeof *v);
    sha256_put(s, v ? "+" : "-", 1);
}

int model_unit_fingerprint(char hex[65], const struct model *m, struct unit u, struct err *err)
{
    const struct block *b = &m->blocks[u.block];
    struct sha256 s;
    sha256_begin(&s);
    for (int p = 0; p < PROJ_COUNT; p++) {
        if (!(u.parts & proj_part((enum proj)p)))
            continue;
        put_weight(&s, m, &b->proj[p]);
        put_vector(&s, b->bias[p], b->proj[p].rows);
    }
    if (u.parts & PART_ATTN)
        put_vector(&s, b->norm_attn, m->cfg.dim);
    if (u.parts & PART_FFN)
        put_vector(&s, b->norm_ffn, m->cfg.dim);
    return sha256_end(hex, &s, err);
}

/* What of the description decides a result. */
static void put_config(struct sha256 *s, const struct model *m)
{
    const struct config *c = &m->cfg;
    char text[400];
    sha256_put(s, text,
               (size_t)snprintf(text, sizeof text, "%s %d %.17g %.17g %.17g %.17g %.17g %lld %d\n", m->hash, c->rope_kind,
                                c->rope_theta, c->rope_factor, c->rope_low_freq_factor, c->rope_high_freq_factor, c->norm_eps,
                                (long long)c->rope_original_context, c->tied_embeddings));
    put_vector(s, m->rope_factors, c->head_dim / 2);
}

int model_fingerprint(struct model *m, struct err *err)
{
    struct sha256 s;
    char block[65];
    int rc = 0;
    if (*m->fingerprint)
        return 0;
    sha256_begin(&s);
    put_config(&s, m);
    put_weight(&s, m, &m->embed);
    put_weight(&s, m, &m->head.w);
    put_vector(&s, m->head.norm, m->cfg.dim);
    for (int64_t i = 0; rc == 0 && i < m->cfg.n_blocks; i++) {
        rc = model_unit_fingerprint(block, m, (struct unit){i, PARTS_ALL}, err);
        sha256_put(&s, block, rc == 0 ? 64 : 0);
    }
    return sha256_end(m->fingerprint, &s, err) == 0 ? rc : -1;
}
