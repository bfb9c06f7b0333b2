#include "core/model/lora.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/io/safetensors.h"
#include "core/model/lora_base.h"

static const char *const target_names[PROJ_COUNT] = {"q", "k", "v", "o", "gate", "up", "down"};

int lora_parse_targets(bool target[PROJ_COUNT], const char *list, struct err *err)
{
    memset(target, 0, PROJ_COUNT * sizeof *target);
    for (const char *p = list;;) {
        size_t n = strcspn(p, ",");
        int k = 0;
        while (k < PROJ_COUNT && !(strlen(target_names[k]) == n && !memcmp(p, target_names[k], n)))
            k++;
        if (k == PROJ_COUNT)
            return err_usage(err, "--targets: \"%.*s\" is none of q, k, v, o, gate, up, down", (int)n, p);
        target[k] = true;
        if (!p[n])
            return 0;
        p += n + 1;
    }
}

/* Calls fn for every targeted projection that runs, in the order of the parameter buffer. */
typedef int visit_fn(void *arg, struct lora *l, const struct weight *w, int64_t block, enum proj which, struct err *err);

static int visit(const struct lora_set *l, const struct model *m, visit_fn *fn, void *arg, struct err *err)
{
    for (int64_t k = 0; k < l->n_blocks; k++)
        for (int p = 0; p < PROJ_COUNT; p++)
            if (l->target[p] && (m->blocks[m->order[k]].parts & proj_part((enum proj)p)) &&
                fn(arg, &l->blocks[k].proj[p], &m->blocks[m->order[k]].proj[p], k, (enum proj)p, err) != 0)
                return -1;
    return 0;
}

static int count_one(void *arg, struct lora *l, const struct weight *w, int64_t block, enum proj which, struct err *err)
{
    (void)l, (void)block, (void)which, (void)err;
    *(int64_t *)arg += w->rows + w->cols;
    return 0;
}

struct placement {
    const struct lora_set *set;
    float scale;
    int64_t at;
};

static int place_one(void *arg, struct lora *l, const struct weight *w, int64_t block, enum proj which, struct err *err)
{
    (void)block, (void)which, (void)err;
    struct placement *p = arg;
    int64_t r = p->set->rank, b_at = p->at + r * w->cols;
    *l = (struct lora){.rank = r, .scale = p->scale, .a = p->set->params + p->at, .b = p->set->params + b_at};
    if (p->set->grads) {
        l->da = p->set->grads + p->at;
        l->db = p->set->grads + b_at;
    }
    p->at = b_at + r * w->rows;
    return 0;
}

int lora_create(struct lora_set *l, const struct model *m, int64_t rank, double alpha, double dropout,
                const bool target[PROJ_COUNT], bool with_grads, struct err *err)
{
    *l = (struct lora_set){.rank = rank, .alpha = alpha, .dropout = dropout, .n_blocks = m->n_order};
    memcpy(l->target, target, sizeof l->target);
    if (rank < 1 || rank > 1024)
        return err_set(err, "LoRA rank: 1 to 1024 was expected, %lld found", (long long)rank);
    if (!(dropout >= 0 && dropout < 1) || !(alpha > 0))
        return err_set(err, "LoRA: alpha must be positive and dropout in [0, 1)");
    int64_t n = 0;
    l->blocks = arena_alloc(&l->arena, (size_t)l->n_blocks, sizeof *l->blocks, err);
    if (!l->blocks)
        return -1;
    visit(l, m, count_one, &n, err);
    l->n_params = n * rank;
    l->params = arena_alloc(&l->arena, (size_t)l->n_params, sizeof(float), err);
    l->grads = with_grads ? arena_alloc(&l->arena, (size_t)l->n_params, sizeof(float), err) : NULL;
    if (!l->params || (with_grads && !l->grads)) {
        lora_free(l);
        return -1;
    }
    struct placement p = {l, (float)(alpha / (double)rank), 0};
    return visit(l, m, place_one, &p, err);
}

static int init_one(void *arg, struct lora *l, const struct weight *w, int64_t block, enum proj which, struct err *err)
{
    (void)block, (void)which, (void)err;
    double bound = 1 / sqrt((double)w->cols);
    for (int64_t i = 0; i < l->rank * w->cols; i++)
        l->a[i] = (float)((2 * rng_double(arg) - 1) * bound);
    return 0;
}

void lora_init(struct lora_set *l, const struct model *m, struct rng *rng)
{
    struct err none = {0};
    memset(l->params, 0, (size_t)l->n_params * sizeof *l->params);
    visit(l, m, init_one, rng, &none);
}

void lora_free(struct lora_set *l)
{
    arena_free(&l->arena);
    *l = (struct lora_set){0};
}

/* ---- PEFT files ---- */

static void tensor_name(char name[160], int64_t block, enum proj which, char side)
{
    snprintf(name, 160, "base_model.model.model.layers.%lld.%s.lora_%c.weight", (long long)block, proj_names[which], side);
}

/* Whether the file holds an adapter for that projection of some block. What PEFT adapted is what it wrote: "target_modules" may be a
 * list of suffixes or full names, a pattern or "all-linear". */
static bool adapts(const struct source *src, enum proj which)
{
    char suffix[160];
    snprintf(suffix, sizeof suffix, ".%s.lora_A.weight", proj_names[which]);
    for (int64_t i = 0; i < src->n_tensors; i++)
        if (path_has_suffix(src->tensors[i].name, suffix))
            return true;
    return false;
}

/* What belongs to no projection of a block is part of what the adapter computes, and not implemented. */
static int refuse_others(const struct source *src, struct err *err)
{
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const char *name = src->tensors[i].name;
        bool known = false;
        for (int p = 0; p < PROJ_COUNT && !known; p++) {
            char part[120];
            snprintf(part, sizeof part, ".%s.lora_", proj_names[p]);
            known = strstr(name, ".layers.") && strstr(name, part);
        }
        if (!known)
            return err_set(err, "%s: tensor %s: an adapter of this module is not supported (those of a block's projections are)",
                           src->tensors[i].file, name);
    }
    return 0;
}

/* How the adapter was begun matters where that changed the base model's weights: then it is no sum with the base as it is. */
static int check_start(const json_t *root, const char *file, struct err *err)
{
    static const char *const plain[] = {"gaussian", "eva", "orthogonal", "true", "false", "True", "False"};
    const json_t *v = json_object_get(root, "init_lora_weights");
    const char *name = json_string_value(v);
    if (!name)
        return 0;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (!strcmp(name, plain[i]))
            return 0;
    return err_set(
        err,
        "%s: \"init_lora_weights\": \"%s\" changes the base model's weights and is not supported; convert the adapter to "
        "plain LoRA with PEFT (save_pretrained with path_initial_model_for_weight_conversion)",
        file, name);
}

/* Options of PEFT that change what an adapter computes and are not implemented here. */
static int refuse_variants(const json_t *root, const char *file, struct err *err)
{
    static const char *const flags[] = {"use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "use_bdlora"};
    static const char *const values[] = {"rank_pattern",
                                         "alpha_pattern",
                                         "modules_to_save",
                                         "layers_to_transform",
                                         "arrow_config",
                                         "layer_replication",
                                         "trainable_token_indices",
                                         "target_parameters",
                                         "corda_config",
                                         "lora_ga_config",
                                         "alora_invocation_tokens",
                                         "kasa_config",
                                         "velora_config",
                                         "monteclora_config",
                                         "loftq_config"};
    const char *bias = "none";
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (json_is_true(json_object_get(root, flags[i])))
            return err_set(err, "%s: \"%s\" is not supported", file, flags[i]);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const json_t *v = json_object_get(root, values[i]);
        if (json_object_size(v) > 0 || json_array_size(v) > 0 || json_is_integer(v) || json_is_string(v))
            return err_set(err, "%s: \"%s\" is not supported", file, values[i]);
    }
    if (json_get_string(&bias, root, "bias", file, err) != 0)
        return -1;
    if (strcmp(bias, "none"))
        return err_set(err, "%s: \"bias\": \"%s\" is not supported (none is)", file, bias);
    return check_start(root, file, err);
}

static int read_config(struct lora_set *l, const struct model *m, const char *file, const struct source *src, bool with_grads,
                       struct err *err)
{
    json_t *root = json_read(file, err);
    int64_t rank = 0;
    double alpha = 8, dropout = 0;
    const char *type = "";
    bool target[PROJ_COUNT], rslora = false, any = false;
    int rc = -1;
    if (!root || refuse_variants(root, file, err) != 0 || json_get_string(&type, root, "peft_type", file, err) != 0 ||
        json_get_int(&rank, root, "r", file, err) != 0 || json_get_real(&alpha, root, "lora_alpha", file, err) != 0 ||
        json_get_real(&dropout, root, "lora_dropout", file, err) != 0 || json_get_bool(&rslora, root, "use_rslora", file, err) != 0)
        goto done;
    if (strcmp(type, "LORA")) {
        err_set(err, "%s: peft_type \"%s\" is not supported (LORA is)", file, type);
        goto done;
    }
    for (int p = 0; p < PROJ_COUNT; p++)
        any |= target[p] = adapts(src, (enum proj)p);
    if (!any) {
        err_set(err, "%s: an adapter of none of a block's projections", file);
        goto done;
    }
    if (rslora && rank > 0) /* scale alpha / sqrt(r): kept as the alpha that gives it */
        alpha *= sqrt((double)rank);
    rc = lora_create(l, m, rank, alpha, dropout, target, with_grads, err);
done:
    json_decref(root);
    return rc;
}

static int load_matrix(float *out, const struct source *src, const char *name, int64_t rows, int64_t cols, struct err *err)
{
    const struct tensor *t = source_find(src, name);
    const char *file = src->n_tensors ? src->tensors[0].file : "adapter_model.safetensors";
    if (!t)
        return err_set(err, "%s: tensor %s is missing", file, name);
    if (t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != cols)
        return err_set(err, "%s: tensor %s: shape [%lld, %lld] was expected, [%lld, %lld] found", t->file, name, (long long)rows,
                       (long long)cols, (long long)t->shape[0], (long long)t->shape[1]);
    rows_portable.decode[t->dtype](out, t->data, rows * cols);
    for (int64_t i = 0; i < rows * cols; i++)
        if (!isfinite(out[i]))
            return err_set(err, "%s: tensor %s holds a value that is not finite", t->file, name);
    return 0;
}

static int load_one(void *arg, struct lora *l, const struct weight *w, int64_t block, enum proj which, struct err *err)
{
    char name[160];
    tensor_name(name, block, which, 'A');
    if (load_matrix(l->a, arg, name, l->rank, w->cols, err) != 0)
        return -1;
    tensor_name(name, block, which, 'B');
    return load_matrix(l->b, arg, name, w->rows, l->rank, err);
}

static int count_tensors(void *arg, struct lora *l, const struct weight *w, int64_t block, enum proj which, struct err *err)
{
    (void)l, (void)w, (void)block, (void)which, (void)err;
    *(int64_t *)arg += 2;
    return 0;
}

/* adapter_model.safetensors, or else PEFT's older adapter_model.bin; malloc'ed. */
static char *weights_file(const char *dir, struct err *err)
{
    char *file = path_join(dir, "adapter_model.safetensors", err), *older = path_join(dir, "adapter_model.bin", err);
    int there = file ? path_status(file, err) : -1, older_there = older && there == 0 ? path_status(older, err) : 0;
    if (there < 0 || older_there < 0 || !older) {
        free(file);
        free(older);
        return NULL;
    }
    free(older_there ? file : older);
    return older_there ? older : file;
}

int lora_load(struct lora_set *l, const struct model *m, const char *dir, bool with_grads, struct err *err)
{
    struct source src = {0};
    int64_t expected = 0;
    int rc = -1;
    *l = (struct lora_set){0};
    char *config = path_join(dir, "adapter_config.json", err), *weights = weights_file(dir, err);
    bool other = false;
    if (!config || !weights || lora_base_check(&other, m, dir, err) != 0 || source_open(&src, weights, err) != 0 ||
        refuse_others(&src, err) != 0 || read_config(l, m, config, &src, with_grads, err) != 0)
        goto done;
    visit(l, m, count_tensors, &expected, err);
    if (src.n_tensors != expected) {
        err_set(err, "%s: %lld tensors were expected for the %lld blocks that run, %lld found", weights, (long long)expected,
                (long long)l->n_blocks, (long long)src.n_tensors);
        goto done;
    }
    l->other_base = other;
    rc = visit(l, m, load_one, &src, err);
done:
    source_close(&src);
    free(config);
    free(weights);
    if (rc != 0)
        lora_free(l);
    return rc;
}

struct saving {
    struct tensor_entry *entries;
    char (*names)[160];
    const void **data;
    int64_t n;
};

static int list_one(void *arg, struct lora *l, const struct weight *w, int64_t block, enum proj which, struct err *err)
{
    (void)err;
    struct saving *s = arg;
    for (int side = 0; side < 2; side++, s->n++) {
        tensor_name(s->names[s->n], block, which, side ? 'B' : 'A');
        s->data[s->n] = side ? l->b : l->a;
        s->entries[s->n] =
            (struct tensor_entry){s->names[s->n], DTYPE_F32, 2, {side ? w->rows : l->rank, side ? l->rank : w->cols}};
    }
    return 0;
}

/* *w has no name yet; what it needs until it has is in the arena. */
static int save_weights(struct safetensors_writer *w, struct arena *arena, const struct lora_set *l, const struct model *m,
                        const char *path, struct err *err)
{
    size_t max = (size_t)l->n_blocks * PROJ_COUNT * 2;
    struct saving s = {arena_alloc(arena, max, sizeof *s.entries, err), arena_alloc(arena, max, sizeof *s.names, err),
                       arena_alloc(arena, max, sizeof *s.data, err), 0};
    if (!s.entries || !s.names || !s.data || visit(l, m, list_one, &s, err) != 0)
        return -1;
    return safetensors_writer_fill(w, path, s.entries, s.data, s.n, NULL, err);
}

static int save_config(struct file_writer *w, const struct lora_set *l, const struct model *m, const char *path, struct err *err)
{
    json_t *targets = json_array();
    for (int p = 0; p < PROJ_COUNT; p++)
        if (l->target[p])
            json_array_append_new(targets, json_string(strchr(proj_names[p], '.') + 1));
    json_t *root = json_pack("{ss ss ss so sI sf sf so sb sb sb sb}", "peft_type", "LORA", "task_type", "CAUSAL_LM", "bias", "none",
                             "base_model_name_or_path", json_text(m->path), "r", (json_int_t)l->rank, "lora_alpha", l->alpha,
                             "lora_dropout", l->dropout, "target_modules", targets, "fan_in_fan_out", 0, "inference_mode", 1,
                             "init_lora_weights", 1, "use_rslora", 0);
    if (l->alpha == floor(l->alpha)) /* PEFT's type is int; a whole number is written as one */
        json_object_set_new(root, "lora_alpha", json_integer((json_int_t)l->alpha));
    int rc = root ? json_write_part(w, path, root, err) : err_set(err, "%s: out of memory", path);
    json_decref(root);
    return rc;
}

/* The configuration gets its name last: a folder without it is no adapter. */
int lora_save(const struct lora_set *l, const struct model *m, const char *dir, struct err *err)
{
    struct safetensors_writer weights = {0};
    struct file_writer base = {0}, config = {0};
    struct arena arena = {0};
    char *config_path = path_join(dir, "adapter_config.json", err), *path = path_join(dir, "adapter_model.safetensors", err);
    int rc = -1;
    if (config_path && path && save_weights(&weights, &arena, l, m, path, err) == 0 && lora_base_save(&base, m, dir, err) == 0 &&
        save_config(&config, l, m, config_path, err) == 0) {
        base.before = &weights.file;
        config.before = &base;
        rc = file_writer_commit(&config, err);
    }
    file_writer_abort(&config); /* these do nothing after the commit */
    file_writer_abort(&base);
    file_writer_abort(&weights.file);
    arena_free(&arena);
    free(config_path);
    free(path);
    return rc;
}
