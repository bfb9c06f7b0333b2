#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/base/dir.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/place.h"
#include "core/base/record.h"
#include "core/base/rng.h"
#include "train/trainer.h"

/* Options of `train` beside the trainer's own. */
struct train_args {
    const char *data, *rows, *out, *init, *targets, *loss_average, *memory;
    int64_t rank, val_size;
    double alpha, dropout;
    bool train_on_inputs, force;
};

static int check_args(const struct train_args *a, struct train_options *o, const struct opt_words *words, struct err *err)
{
    static const char *const either[][2] = {
        {"data", "rows"}, {"steps", "epochs"}, {"resume", "force"}, {"rows", "train-on-inputs"}, {NULL}};
    if (opt_exclusive(words, either, err) != 0)
        return -1;
    if (!a->out || !a->data == !a->rows)
        return err_usage(err, "train needs --out, and one of --data and --rows");
    if (!strcmp(a->loss_average, "token"))
        o->token_average = true;
    else if (strcmp(a->loss_average, "micro"))
        return err_usage(err, "--loss-average %s: micro or token was expected", a->loss_average);
    if (!strcmp(a->memory, "keep"))
        o->memory = BACKPROP_KEEP;
    else if (!strcmp(a->memory, "recompute"))
        o->memory = BACKPROP_RECOMPUTE;
    else if (strcmp(a->memory, "auto"))
        return err_usage(err, "--activations %s: auto, keep or recompute was expected", a->memory);
    if (a->val_size < 0 || a->rank < 1 || o->cutoff < 2)
        return err_usage(err, "--val-size must not be negative, --rank positive, --cutoff at least 2");
    if (opt_given(words, "steps") && o->steps < 1)
        return err_usage(err, "--steps %lld: at least 1 was expected", (long long)o->steps);
    return train_check(o, err) == 0 && dir_check_no_link(a->out, err) == 0 ? place_check_dir(a->out, err) : -1;
}

/* An adapter to begin from has a rank, an alpha and targets; what the options say beside it must be the same. */
static int check_init(const struct lora_set *l, const struct train_args *a, const struct opt_words *words, struct err *err)
{
    bool target[PROJ_COUNT];
    if (opt_given(words, "rank") && a->rank != l->rank)
        return err_usage(err, "--rank %lld contradicts --init-adapter %s, whose rank is %lld", (long long)a->rank, a->init,
                         (long long)l->rank);
    if (opt_given(words, "alpha") && a->alpha != l->alpha &&
        a->alpha * sqrt((double)l->rank) != l->alpha) /* rslora's is kept scaled */
        return err_usage(err, "--alpha %g contradicts --init-adapter %s, whose alpha is %g", a->alpha, a->init, l->alpha);
    if (!opt_given(words, "targets"))
        return 0;
    if (lora_parse_targets(target, a->targets, err) != 0)
        return -1;
    if (memcmp(target, l->target, sizeof target))
        return err_usage(err, "--targets %s contradicts --init-adapter %s, which has others", a->targets, a->init);
    return 0;
}

/* Moves val_size rows out of `all` into `eval`: drawn by the seed, or the last ones when rows keep their order. */
static int split(struct instructions *all, struct instructions *eval, int64_t val_size, const struct train_options *o,
                 const char *file, struct err *err)
{
    *eval = (struct instructions){0};
    if (val_size >= all->n)
        return err_set(err, "%s: %lld usable rows; --val-size %lld leaves none to train on", file, (long long)all->n,
                       (long long)val_size);
    int64_t *order = mem_alloc((size_t)all->n, sizeof *order, err);
    struct instruction_row *train = calloc((size_t)all->n, sizeof *train);
    eval->rows = calloc((size_t)val_size + 1, sizeof *eval->rows);
    if (!order || !train || !eval->rows) {
        free(order);
        free(train);
        return err_set(err, "out of memory");
    }
    struct rng rng;
    for (int64_t i = 0; i < all->n; i++)
        order[i] = i;
    if (o->shuffle) {
        rng_seed(&rng, o->seed);
        rng_shuffle(&rng, order, all->n);
    }
    int64_t n_train = all->n - val_size;
    for (int64_t i = 0; i < n_train; i++)
        train[i] = all->rows[order[i]];
    for (int64_t i = 0; i < val_size; i++)
        eval->rows[i] = all->rows[order[n_train + i]];
    eval->n = val_size;
    free(all->rows);
    all->rows = train;
    all->n = n_train;
    free(order);
    return 0;
}

/* The folder must be new or empty, unless the training is to be resumed or replaced. */
static int prepare_folder(const struct train_args *a, bool *resume, struct progress *progress, struct err *err)
{
    char *log = path_join(a->out, "train.jsonl", err), *state = path_join(a->out, "checkpoint.safetensors", err),
         *whole = path_join(a->out, "adapter_model.safetensors", err);
    int rc = -1;
    if (!log || !state || !whole)
        goto done;
    int has_log = path_status(log, err), has_state = path_status(state, err), is_whole = path_status(whole, err);
    if (has_log < 0 || has_state < 0 || is_whole < 0)
        goto done;
    if (*resume && !has_log && !has_state) {
        err_set(err, "%s: nothing to resume from: no training was begun there; leave out --resume", a->out);
    } else if (*resume && !has_state && is_whole) {
        err_set(err, "%s: the training is finished, and left no checkpoint to go on from (--force begins anew)", a->out);
    } else if (!*resume && !a->force && has_log) {
        err_set(err, "%s: holds a training already (--resume goes on with it, --force replaces it)", a->out);
    } else {
        if (*resume && !has_state) /* interrupted before the first checkpoint: nothing is lost but those steps */
            progress_say(progress, "%s: no checkpoint yet; the training begins anew", a->out);
        *resume = *resume && has_state;
        rc = dir_make(a->out, err);
    }
done:
    free(log);
    free(state);
    free(whole);
    return rc;
}

static int make_adapter(struct lora_set *l, const struct session *s, const struct train_args *a, const struct opt_words *words,
                        uint64_t seed, bool quiet, struct err *err)
{
    bool target[PROJ_COUNT];
    if (a->init) {
        if (lora_load(l, &s->m, a->init, true, err) != 0 || check_init(l, a, words, err) != 0)
            return -1;
        tell_other_base(l, a->init, s->m.path, quiet);
        l->dropout = a->dropout;
        return 0;
    }
    struct rng rng;
    rng_seed(&rng, seed);
    if (lora_parse_targets(target, a->targets, err) != 0 ||
        lora_create(l, &s->m, a->rank, a->alpha, a->dropout, target, true, err) != 0)
        return -1;
    lora_init(l, &s->m, &rng);
    return 0;
}

static void report(struct cli *cli, const struct train_result *r, const struct lora_set *l, const char *out)
{
    double rate = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
    json_object_update_new(cli->result, json_pack("{so sI sI sI sf sI}", "out", json_text(out), "steps", (json_int_t)r->steps,
                                                  "rows", (json_int_t)r->rows, "trainable_params", (json_int_t)l->n_params,
                                                  "tokens_per_s", rate, "tokens", (json_int_t)r->tokens));
    if (isfinite(r->last_loss))
        json_object_set_new(cli->result, "last_loss", json_real(r->last_loss));
    if (r->warnings)
        json_object_set(cli->result, "warnings", r->warnings);
    if (isfinite(r->eval_loss))
        json_object_set_new(cli->result, "eval_loss", json_real(r->eval_loss));
    if (cli->out && !cli->json)
        fprintf(cli->out, "%lld steps, loss %.4f -> %.4f, %.0f tokens/s; adapter of %.2f M parameters in %s\n", (long long)r->steps,
                r->first_loss, r->last_loss, rate, 1e-6 * (double)l->n_params, out);
}

/* Rows without anything to learn are left out; the result says so, too. */
static void warn_of_skipped(struct train_result *r, const char *file, int64_t skipped)
{
    if (skipped == 0)
        return;
    struct err text = {0};
    err_set(&text, "%s: %lld rows left out, nothing to learn in them", file, (long long)skipped);
    if (!r->warnings)
        r->warnings = json_array();
    json_array_append_new(r->warnings, json_text(text.msg));
}

/* The rows as the tokenizer made them, and which of them are set aside. */
static int hash_rows(char hex[65], const struct instructions *train, const struct instructions *eval, struct err *err)
{
    const struct instructions *both[] = {train, eval};
    struct sha256 s;
    sha256_begin(&s);
    for (int k = 0; k < 2; k++) {
        sha256_put(&s, &both[k]->n, sizeof both[k]->n);
        for (int64_t i = 0; i < both[k]->n; i++) {
            const struct instruction_row *r = &both[k]->rows[i];
            sha256_put(&s, &r->n, sizeof r->n);
            sha256_put(&s, r->ids, (size_t)r->n * sizeof *r->ids);
            sha256_put(&s, r->labels, (size_t)r->n * sizeof *r->labels);
        }
    }
    return sha256_end(hex, &s, err);
}

/* What a training is of: weights, blocks, data, and every option that decides its result. A new object; NULL and an error. */
static json_t *describe_work(const struct session *s, const struct instructions *train, const struct instructions *eval,
                             const struct train_args *a, const struct opt *own, const struct common *o, struct err *err)
{
    static const char *const skip[] = {"data", "rows",        "out",    "init-adapter", "save-every",
                                       "keep", "activations", "resume", "force",        NULL};
    char data[65], rows[65], init[65] = "";
    json_t *work = NULL;
    if (hash_rows(rows, train, eval, err) != 0 || file_sha256(data, a->data ? a->data : a->rows, err) != 0 ||
        (a->init && record_content(init, a->init, err) != 0))
        return NULL;
    work = json_pack("{ss ss ss ss ss sI ss}", "the model", s->m.fingerprint, "drop", o->drop ? o->drop : "", "the data", data,
                     "init-adapter", init, "compute", o->compute, "seed", (json_int_t)o->seed, "version", ESPALIER_VERSION);
    if (work && opt_describe(work, own, skip) == 0 && json_object_set_new(work, "the tokens of the data", json_string(rows)) == 0)
        return work; /* the tokens last: what else differs says more */
    json_decref(work);
    err_set(err, "out of memory");
    return NULL;
}

/* An adapter to begin from brings its own rank, alpha and targets. */
static int put_adapters_own(json_t *options, const struct lora_set *l)
{
    char targets[80] = "";
    size_t n = 0;
    for (int p = 0; p < PROJ_COUNT; p++) {
        const char *name = strchr(proj_names[p], '.') + 1; /* "q_proj", which the option calls "q" */
        if (l->target[p])
            n += (size_t)snprintf(targets + n, sizeof targets - n, "%s%.*s", n ? "," : "", (int)strcspn(name, "_"), name);
    }
    json_t *own = json_pack("{sI sf ss}", "rank", (json_int_t)l->rank, "alpha", l->alpha, "targets", targets);
    return own && json_object_update_new(options, own) == 0 ? 0 : -1;
}

/* What the result and its curves say beside session_facts: every option in effect, also those that nobody gave, and what was
 * trained on. A new object; NULL and an error. */
static json_t *describe_training(const struct lora_set *l, const struct instructions *train, const struct instructions *eval,
                                 const struct train_args *a, const struct train_options *t, const struct opt *own, struct err *err)
{
    const char *const skip[] = {"resume", "force", t->steps > 0 ? "epochs" : "steps", NULL};
    char sha256[65];
    json_t *options = json_object(), *facts = NULL;
    if (file_sha256(sha256, a->data ? a->data : a->rows, err) != 0)
        goto done;
    if (opt_describe(options, own, skip) == 0 && (!a->init || put_adapters_own(options, l) == 0) &&
        json_object_set_new(options, t->steps > 0 ? "epochs" : "steps", json_null()) == 0) /* the other one counts */
        facts = json_pack("{sO ss sI sI sI}", "options", options, "data_sha256", sha256, "rows_used", (json_int_t)train->n,
                          "rows_set_aside", (json_int_t)eval->n, "rows_left_out", (json_int_t)train->skipped);
    if (!facts)
        err_set(err, "out of memory");
done:
    json_decref(options);
    return facts;
}

/* session_facts with those of the training: for its curves before it, for its result after it. */
static json_t *all_facts(const struct session *s, const struct cli *cli, const struct common *o, json_t *training, struct err *err)
{
    json_t *facts = session_facts(s, cli, o);
    json_t *options = json_object_get(training, "options");
    if (facts && json_object_update_missing(options, json_object_get(facts, "options")) == 0 &&
        json_object_update(facts, training) == 0)
        return facts;
    json_decref(facts);
    err_set(err, "out of memory");
    return NULL;
}

/* Reads the rows, makes the adapter and the folder, and trains. */
static int train_model(struct cli *cli, const struct opt_words *words, const struct opt *own, const struct train_args *a,
                       struct train_options *t, const struct common *o, struct err *err)
{
    struct session s;
    struct lora_set l = {0};
    struct instructions train = {0}, eval = {0};
    struct train_result r = {0};
    const char *file = a->data ? a->data : a->rows;
    json_t *work = NULL, *training = NULL;
    int there = path_status(a->out, err), rc = -1;
    if (there < 0 || session_open(&s, o, words->word[0], a->data ? NEEDS_TOKENIZER : 0, err) != 0)
        return -1;
    if ((a->data ? instructions_read(&train, a->data, s.t, t->cutoff, a->train_on_inputs, err)
                 : instructions_read_rows(&train, a->rows, t->cutoff, err)) != 0 ||
        split(&train, &eval, a->val_size, t, file, err) != 0 || make_adapter(&l, &s, a, words, t->seed, cli->quiet, err) != 0 ||
        prepare_folder(a, &t->resume, &cli->progress, err) != 0 || !(work = describe_work(&s, &train, &eval, a, own, o, err)) ||
        !(training = describe_training(&l, &train, &eval, a, t, own, err)))
        goto done;
    t->work = work;
    if (train.skipped > 0)
        progress_say(&cli->progress, "%s: %lld rows left out, nothing to learn in their first %lld tokens", file,
                     (long long)train.skipped, (long long)t->cutoff);
    json_t *facts = all_facts(&s, cli, o, training, err);
    rc = !facts ? -1 : train_lora(&r, &l, &s.m, &s.c, &train, &eval, t, a->out, facts, &cli->progress, err);
    json_decref(facts);
    if (rc != 0) {
        if (!there)
            rmdir(a->out); /* where nothing was begun; what is in it stays */
        goto done;
    }
    if (!(cli->result = all_facts(&s, cli, o, training, err))) {
        rc = -1;
        goto done;
    }
    warn_of_skipped(&r, file, train.skipped);
    report(cli, &r, &l, a->out);
done:
    json_decref(r.warnings);
    json_decref(work);
    json_decref(training);
    instructions_free(&train);
    instructions_free(&eval);
    lora_free(&l);
    session_close(&s);
    return rc;
}

int cmd_train(struct cli *cli, struct err *err)
{
    struct train_args a = {.targets = "q,k,v,o,gate,up,down",
                           .loss_average = "micro",
                           .memory = "auto",
                           .rank = 8,
                           .val_size = 2000,
                           .alpha = 16,
                           .dropout = 0.05};
    struct train_options t = {.lr = 1e-4,
                              .clip = 1,
                              .epochs = 2,
                              .batch = 64,
                              .micro_batch = 4,
                              .cutoff = 256,
                              .warmup = 100,
                              .eval_every = 100,
                              .save_every = 200,
                              .keep = 3,
                              .shuffle = true};
    struct opt own[] = {
        {OPT_STRING, "data", &a.data, "FILE", "Alpaca rows (.json or .jsonl: instruction, input, output)"},
        {OPT_STRING, "rows", &a.rows, "FILE", "ready rows instead: [{\"ids\": [...], \"labels\": [... -100 ...]}]"},
        {OPT_STRING, "out", &a.out, "DIR", "folder for the adapter, its checkpoints and curves"},
        {OPT_STRING, "init-adapter", &a.init, "DIR", "begin from this adapter (its rank, alpha and targets count)"},
        {OPT_INT, "rank", &a.rank, "R", "rank of the adapter"},
        {OPT_REAL, "alpha", &a.alpha, "A", "the adapter's output is scaled by alpha / rank"},
        {OPT_REAL, "dropout", &a.dropout, "P", "dropout on the adapter's input"},
        {OPT_STRING, "targets", &a.targets, "LIST", "projections that get an adapter"},
        {OPT_REAL, "lr", &t.lr, "LR", "highest learning rate"},
        {OPT_INT, "epochs", &t.epochs, "N", "passes over the data"},
        {OPT_INT, "steps", &t.steps, "N", "optimizer steps, instead of --epochs"},
        {OPT_INT, "batch", &t.batch, "N", "rows per optimizer step"},
        {OPT_INT, "micro-batch", &t.micro_batch, "N", "rows whose losses are averaged token by token"},
        {OPT_INT, "cutoff", &t.cutoff, "N", "tokens of a row at most"},
        {OPT_INT, "warmup", &t.warmup, "N", "steps of rising learning rate"},
        {OPT_REAL, "clip", &t.clip, "C", "largest norm of the gradient; 0 does not clip"},
        {OPT_INT, "val-size", &a.val_size, "N", "rows set aside for evaluation"},
        {OPT_INT, "eval-every", &t.eval_every, "N", "evaluate every N steps (and at the end)"},
        {OPT_INT, "save-every", &t.save_every, "N", "checkpoint every N steps"},
        {OPT_INT, "keep", &t.keep, "N", "checkpoints that stay; 0 keeps all"},
        {OPT_STRING, "loss-average", &a.loss_average, "A", "micro: mean of the micro-batches' means; token: mean over tokens"},
        {OPT_STRING, "activations", &a.memory, "M", "keep, recompute, or auto: keep where memory allows"},
        {OPT_FLAG, "train-on-inputs", &a.train_on_inputs, NULL, "learn the prompts too"},
        {OPT_NO, "no-shuffle", &t.shuffle, NULL, "rows in the order of the file"},
        {OPT_FLAG, "resume", &t.resume, NULL, "go on from the last checkpoint in DIR"},
        {OPT_FLAG, "force", &a.force, NULL, "replace a training in DIR"},
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    int rc = command_parse(cli, &words, own, &o, 42, 1, 1, "MODEL --data FILE --out DIR", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    t.seed = (uint64_t)o.seed;
    if (check_args(&a, &t, &words, err) != 0)
        return -1;
    if (o.adapter)
        return err_usage(err, "train takes --init-adapter, not --adapter");
    if (cli->checking)
        return 0;
    return train_model(cli, &words, own, &a, &t, &o, err);
}

int cmd_merge(struct cli *cli, struct err *err)
{
    struct target t = {0};
    struct opt own[] = {
        {OPT_STRING, "out", &t.out, "OUT", "folder, or file that ends in .gguf or .h5, for the merged model"},
        TARGET_OPTIONS(t),
        {.kind = OPT_END},
    };
    struct opt_words words;
    struct common o;
    struct session s;
    int rc = command_parse(cli, &words, own, &o, 0, 1, 1, "MODEL --adapter DIR --out OUT", err);
    if (rc != 0)
        return rc > 0 ? 0 : -1;
    if (!t.out || !o.adapter)
        return err_usage(err, "merge needs --adapter and --out");
    if (target_check(&t, err) != 0)
        return -1;
    if (cli->checking)
        return 0;
    if (session_open(&s, &o, words.word[0], 0, err) != 0)
        return -1;
    rc = session_save(&s, cli, &t, NULL, NULL, NULL, err);
    if (rc == 0) {
        cli->result = session_facts(&s, cli, &o);
        json_object_set_new(cli->result, "out", json_text(t.out));
        session_saved_facts(cli->result, &s);
        if (cli->out && !cli->json)
            fprintf(cli->out, "%s with %s merged in: %.2f M parameters in %s\n", s.m.path, o.adapter,
                    1e-6 * (double)model_params(&s.m), t.out);
    }
    session_close(&s);
    return rc;
}
