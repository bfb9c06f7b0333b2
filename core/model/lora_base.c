#include "core/model/lora_base.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/mem.h"

enum { DIGITS = 16 }; /* of a block's fingerprint */

struct trained {
    int64_t n_blocks, n; /* blocks of the base; units that ran */
    struct unit *units;  /* [n] */
    json_t *prints;      /* borrowed: [n] strings */
};

static struct unit running(const struct model *m, int64_t k)
{
    return (struct unit){m->order[k], m->blocks[m->order[k]].parts};
}

int lora_base_save(struct file_writer *w, const struct model *m, const char *dir, struct err *err)
{
    struct model named = *m; /* to keep the fingerprint in, where the caller has not asked for it */
    char *path = path_join(dir, "espalier.json", err), hex[65], name[UNIT_NAME];
    json_t *units = json_array(), *prints = json_array();
    int rc = path ? model_fingerprint(&named, err) : -1;
    for (int64_t k = 0; rc == 0 && k < m->n_order; k++) {
        struct unit u = running(m, k);
        rc = model_unit_fingerprint(hex, m, u, err);
        json_array_append_new(units, json_string(unit_name(name, u)));
        json_array_append_new(prints, rc == 0 ? json_stringn(hex, DIGITS) : NULL);
    }
    json_t *root = json_pack("{ss sI so so}", "base_fingerprint", named.fingerprint, "n_blocks", (json_int_t)m->cfg.n_blocks,
                             "blocks", units, "block_fingerprints", prints);
    if (rc == 0)
        rc = root ? json_write_part(w, path, root, err) : err_set(err, "%s: out of memory", path);
    json_decref(root);
    free(path);
    return rc;
}

static int read_trained(struct trained *t, const json_t *root, const char *file, struct err *err)
{
    const json_t *names = json_object_get(root, "blocks");
    t->prints = json_object_get(root, "block_fingerprints");
    t->n = (int64_t)json_array_size(names);
    if (json_get_int(&t->n_blocks, root, "n_blocks", file, err) != 0)
        return -1;
    if (t->n < 1 || (int64_t)json_array_size(t->prints) != t->n)
        return err_set(err, "%s: two lists of one length, \"blocks\" and \"block_fingerprints\", were expected", file);
    if (!(t->units = mem_alloc((size_t)t->n, sizeof *t->units, err)))
        return -1;
    for (int64_t k = 0; k < t->n; k++) {
        const char *name = json_string_value(json_array_get(names, (size_t)k));
        const char *print = json_string_value(json_array_get(t->prints, (size_t)k));
        struct unit *u = NULL;
        int64_t n = 0;
        struct err why = {0};
        bool good = name && print && strlen(print) == DIGITS && units_parse(&u, &n, name, &why) == 0 && n == 1;
        if (good)
            t->units[k] = *u;
        free(u);
        if (!good || t->units[k].block < 0 || t->units[k].block >= t->n_blocks ||
            (k > 0 && t->units[k].block <= t->units[k - 1].block))
            return err_set(err, "%s: \"blocks\" and \"block_fingerprints\": entry %lld is damaged", file, (long long)k);
    }
    return 0;
}

/* 1: the unit has the weights that unit k of the training had, 0: others. */
static int is_unit(const struct model *m, struct unit u, const struct trained *t, int64_t k, struct err *err)
{
    char hex[65];
    if (u.parts != t->units[k].parts)
        return 0;
    if (model_unit_fingerprint(hex, m, u, err) != 0)
        return -1;
    return !memcmp(hex, json_string_value(json_array_get(t->prints, (size_t)k)), DIGITS);
}

/* keep[block]: the parts that ran in training, found by their weights. 1: all were found, 0: not all. */
static int find_units(unsigned *keep, const struct model *m, const struct trained *t, struct err *err)
{
    int64_t k = 0;
    for (int64_t i = 0; i < m->cfg.n_blocks && k < t->n; i++) {
        int same = is_unit(m, (struct unit){i, t->units[k].parts}, t, k, err);
        if (same < 0)
            return -1;
        if (same)
            keep[i] = t->units[k++].parts;
    }
    return k == t->n;
}

/* Counts the running units that are units of the training; *moved: some are at other places than there. */
static int64_t shared_units(bool *moved, const struct model *m, const struct trained *t, struct err *err)
{
    int64_t shared = 0;
    for (int64_t k = 0; k < m->n_order; k++)
        for (int64_t j = 0; j < t->n; j++) {
            int same = is_unit(m, running(m, k), t, j, err);
            if (same < 0)
                return -1;
            if (!same)
                continue;
            shared++;
            *moved |= j != k;
            break;
        }
    return shared;
}

/* keep[n_blocks]: what ran in the training. */
static int refuse(const unsigned *keep, int64_t n_blocks, const char *file, struct err *err)
{
    char list[600] = "", name[UNIT_NAME];
    size_t at = 0;
    for (int64_t i = 0; i < n_blocks; i++)
        if (keep[i] != PARTS_ALL && at + UNIT_NAME < sizeof list)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", at ? "," : "",
                                   unit_name(name, (struct unit){i, PARTS_ALL & ~keep[i]}));
    if (!at)
        return err_set(err, "%s: the adapter was trained with all %lld blocks of the model: run it without dropping any", file,
                       (long long)n_blocks);
    return err_set(err, "%s: the adapter was trained without the blocks %s (--drop %s), and others run here", file, list, list);
}

static int check(bool *other, const struct model *m, const struct trained *t, unsigned *keep, const char *file, struct err *err)
{
    int same = m->n_order == t->n;
    bool alike = same;
    for (int64_t k = 0; alike && k < t->n; k++)
        alike = running(m, k).block == t->units[k].block && running(m, k).parts == t->units[k].parts;
    for (int64_t k = 0; same == 1 && k < t->n; k++)
        same = is_unit(m, running(m, k), t, k, err);
    if (same != 0)
        return same < 0 ? -1 : 0;
    int found = find_units(keep, m, t, err);
    if (found < 0)
        return -1;
    *other = !found;
    if (found)
        return refuse(keep, m->cfg.n_blocks, file, err);
    if (m->cfg.n_blocks != t->n_blocks ||
        alike) { /* other weights; or some of the same, less other blocks of theirs than in training */
        bool moved = false;
        int64_t shared = shared_units(&moved, m, t, err);
        if (shared < 0 || (!moved && (alike || !shared)))
            return shared < 0 ? -1 : 0;
    }
    memset(keep, 0, (size_t)t->n_blocks * sizeof *keep);
    bool all = t->n == t->n_blocks;
    for (int64_t k = 0; k < t->n; k++) {
        keep[t->units[k].block] = t->units[k].parts;
        all &= t->units[k].parts == PARTS_ALL;
    }
    return all && m->cfg.n_blocks <= t->n_blocks
               ? err_set(err, "%s: the adapter was trained on a model of %lld blocks, of which others or fewer run here", file,
                         (long long)t->n)
               : refuse(keep, t->n_blocks, file, err);
}

int lora_base_check(bool *other, const struct model *m, const char *dir, struct err *err)
{
    struct trained t = {0};
    char *file = path_join(dir, "espalier.json", err);
    unsigned *keep = NULL;
    json_t *root = NULL;
    int rc = -1, there = file ? path_status(file, err) : -1;
    if (there == 0)
        rc = 0;
    else if (there > 0 && (root = json_read(file, err)) && read_trained(&t, root, file, err) == 0 &&
             (keep = mem_alloc((size_t)(t.n_blocks > m->cfg.n_blocks ? t.n_blocks : m->cfg.n_blocks), sizeof *keep, err)))
        rc = check(other, m, &t, keep, file, err);
    json_decref(root);
    free(t.units);
    free(keep);
    free(file);
    return rc;
}
