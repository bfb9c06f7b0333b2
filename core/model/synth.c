/* A checkpoint of random weights from a config.json alone: a model that has shapes and no data, saved like any other. */
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/model/save_impl.h"

static const float *constant(struct model *m, int64_t n, float value, struct err *err)
{
    float *v = arena_alloc(&m->arena, (size_t)n, sizeof *v, err);
    for (int64_t i = 0; v && i < n; i++)
        v[i] = value;
    return v;
}

/* The blocks share one set of norms and biases; of the weights, rows and columns are all that counts. */
static int make_shapes(struct model *m, bool attention_bias, bool ffn_bias, struct err *err)
{
    const struct config *c = &m->cfg;
    int64_t rows, cols, longest = c->dim > c->ffn_dim ? c->dim : c->ffn_dim;
    model_proj_shape(&rows, &cols, c, PROJ_Q);
    longest = rows > longest ? rows : longest;
    const float *ones = constant(m, c->dim, 1, err), *zeros = constant(m, longest, 0, err);
    m->blocks = arena_alloc(&m->arena, (size_t)c->n_blocks, sizeof *m->blocks, err);
    m->order = arena_alloc(&m->arena, (size_t)c->n_blocks, sizeof *m->order, err);
    if (!ones || !zeros || !m->blocks || !m->order)
        return -1;
    m->embed = m->head.w = (struct weight){.dtype = DTYPE_F32, .rows = c->vocab_size, .cols = c->dim};
    m->head.norm = ones;
    for (int64_t k = 0; k < c->n_blocks; k++) {
        struct block *b = &m->blocks[k];
        for (int p = 0; p < PROJ_COUNT; p++) {
            model_proj_shape(&rows, &cols, c, (enum proj)p);
            b->proj[p] = (struct weight){.dtype = DTYPE_F32, .rows = rows, .cols = cols};
            b->bias[p] = (p <= PROJ_O ? attention_bias : ffn_bias) ? zeros : NULL;
        }
        b->norm_attn = b->norm_ffn = ones;
        b->stored = PARTS_ALL;
    }
    model_restore(m);
    return 0;
}

/* Opens what was written, to see that it is a model, whole. */
static int look(const struct model *m, const char *dir, struct err *err)
{
    struct model written;
    if (model_open(&written, dir, err) != 0)
        return -1;
    int rc = model_params(&written) == model_params(m) ? 0
                                                       : err_set(err, "%s: %lld parameters were expected, %lld found", dir,
                                                                 (long long)model_params(m), (long long)model_params(&written));
    model_close(&written);
    return rc;
}

int model_synthesise(int64_t *params, const char *config, const struct compute *c, const char *dir, enum dtype dtype, uint64_t seed,
                     int64_t shard_bytes, struct progress *progress, struct err *err)
{
    struct model m = {0};
    struct manifest p = {0};
    struct save_options o = {.dtype = dtype, .shard_bytes = shard_bytes};
    struct manifest_options how = {.dtype = dtype, .rest = dtype == DTYPE_F8_E4M3 ? DTYPE_F16 : dtype, .names = &hf_names};
    struct saving s = {.m = &m, .o = &o, .manifest = &p, .path = dir};
    double deviation = 0.02;
    bool attention_bias = false, ffn_bias = false;
    int rc = -1;
    s.config = json_read(config, err);
    if (!s.config || config_from_json(&m.cfg, s.config, config, err) != 0 ||
        json_get_real(&deviation, s.config, "initializer_range", config, err) != 0 ||
        json_get_bool(&attention_bias, s.config, "attention_bias", config, err) != 0 ||
        json_get_bool(&ffn_bias, s.config, "mlp_bias", config, err) != 0)
        goto done;
    if (!(deviation > 0 && deviation < 100)) {
        err_set(err, "%s: an initializer_range above 0 and below 100 was expected, %g found", config, deviation);
        goto done;
    }
    m.path = (char *)config;
    if (make_shapes(&m, attention_bias, ffn_bias, err) != 0 || manifest_make(&p, &m, &how, err) != 0)
        goto done;
    manifest_randomise(&p, seed, (float)deviation, m.cfg.n_blocks);
    config_set_dtypes(s.config, dtype, how.rest);
    *params = model_params(&m);
    if (saving_write(&s, c, false, progress, err) == 0)
        rc = look(&m, dir, err);
done:
    json_decref(s.config);
    manifest_free(&p);
    arena_free(&m.arena);
    return rc;
}
