#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/place.h"

int cmd_convert(struct cli *cli, struct err *err)
{
    struct target t = {0};
    struct opt own[] = {TARGET_OPTIONS(t), {.kind = OPT_END}};
    struct opt_words words;
    struct common o;
    struct session s;
    int rc = command_parse(cli, &words, own, &o, 0, 2, 2, "MODEL OUT [--format F] [--dtype D]", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    t.out = words.word[1];
    if (target_check(&t, err) != 0 || session_open(&s, &o, words.word[0], 0, err) != 0)
        return -1;
    rc = session_save(&s, cli, &t, NULL, NULL, NULL, err);
    if (rc == 0) {
        cli->result = session_facts(&s, cli, &o);
        json_object_set_new(cli->result, "out", json_text(t.out));
        session_saved_facts(cli->result, &s);
        if (cli->out && !cli->json)
            fprintf(cli->out, "%s: %lld blocks and %.2f M parameters in %s\n", s.m.path, (long long)s.m.n_order,
                    1e-6 * (double)model_params(&s.m), t.out);
    }
    session_close(&s);
    return rc;
}

struct synth_words {
    const char *out, *dtype, *shard_size;
    bool force;
};

/* Writes into a temporary folder, which gets its name when all is there. */
static int synthesise(int64_t *params, struct cli *cli, const struct synth_words *w, const char *config, const struct common *o,
                      struct err *err)
{
    struct dir_writer dir;
    struct compute c;
    int64_t shard = 0;
    int dtype = dtype_from_name(w->dtype);
    if (!w->out)
        return err_usage(err, "synth needs --out");
    if (dir_writer_check(w->out, w->force, err) != 0 || place_check_dir(w->out, err) != 0)
        return -1;
    if (dtype < 0 || !(format_table[FORMAT_HF].dtypes >> dtype & 1))
        return err_usage(err, "--dtype %s: f32, f16, bf16 or f8_e4m3 was expected", w->dtype);
    if (w->shard_size && parse_bytes(&shard, "shard-size", w->shard_size, err) != 0)
        return -1;
    if (compute_open(&c, (int)o->threads, PRECISION_F32, err) != 0)
        return -1;
    int rc = dir_writer_open(&dir, w->out, w->force, err);
    if (rc == 0) {
        rc = model_synthesise(params, config, &c, dir.tmp, (enum dtype)dtype, (uint64_t)o->seed, shard, &cli->progress, err);
        if (rc == 0)
            rc = dir_writer_commit(&dir, err);
        else
            dir_writer_abort(&dir);
    }
    compute_close(&c);
    return rc;
}

int cmd_synth(struct cli *cli, struct err *err)
{
    struct synth_words w = {.dtype = "f16"};
    struct opt own[] = {
        {OPT_STRING, "out", &w.out, "DIR", "folder for the checkpoint"},
        {OPT_STRING, "dtype", &w.dtype, "D", "f32, f16, bf16 or f8_e4m3"},
        {OPT_STRING, "shard-size", &w.shard_size, "N", "bytes of one file, such as 500MB; default 5GB"},
        {OPT_FLAG, "force", &w.force, NULL, "replace DIR if it exists"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    int64_t params;
    double started = clock_seconds();
    int rc = command_parse(cli, &words, own, &o, 1, 1, 1, "CONFIG --out DIR", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (synthesise(&params, cli, &w, words.word[0], &o, err) != 0)
        return -1;
    cli->result = json_pack("{so so ss sI sI sf}", "out", json_text(w.out), "config", json_text(words.word[0]), "dtype", w.dtype,
                            "seed", (json_int_t)o.seed, "n_params", (json_int_t)params, "wall_seconds", clock_seconds() - started);
    if (cli->out && !cli->json)
        fprintf(cli->out, "%s: %lld parameters in %s, %.0f s\n", words.word[0], (long long)params, w.out,
                clock_seconds() - started);
    return 0;
}
