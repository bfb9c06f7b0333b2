/* `espalier bench --shape`: what a model of full size takes on this machine, from a checkpoint of random weights. Each stage is a
 * command of this program, run as a program of its own, so that its memory is its own; its result stays on record. */
#ifndef ESPALIER_CLI_BENCH_SHAPE_H
#define ESPALIER_CLI_BENCH_SHAPE_H

#include "cli/cli.h"

/* Runs the stages for the first shape of the list "A.json,B.json" that the disk has room for, in DIR/<name of the shape>. Prints
 * the table (Markdown) and leaves it as bench.json there. */
int bench_shapes(struct cli *cli, const struct common *o, const char *shapes, const char *dir, struct err *err);

/* ---- between bench_shape.c (the stages) and bench_table.c (what they tell) ---- */

enum { BENCH_WHOLE, BENCH_PRUNED, BENCH_MODELS };
enum { BENCH_BATCHES = 3, BENCH_DTYPES = 3, BENCH_TURNS = 3 };
extern const char *const bench_dtypes[BENCH_DTYPES]; /* "f16", "q8_0", "q4_0" */

/* What the stages left: {"seconds", "peak_rss_bytes", "result"} each, the prune's with "disk_rate" (bytes per second) beside; NULL
 * where a stage was left out. */
struct bench_records {
    json_t *synth, *prune, *score, *score_bf16, *taylor, *first_token;
    json_t *decode[BENCH_DTYPES];
    json_t *speed[BENCH_MODELS][BENCH_BATCHES];
    json_t *turns[BENCH_MODELS][BENCH_TURNS]; /* decoding the whole model and what --drop leaves of it, one after the other */
    double needed[BENCH_DTYPES];              /* memory for decoding, in bytes: what was missing where there is no record */
};

/* The result: {"shape", "machine", "figures": [{"name", "what", "value", "reached", "aim"}], "speed": [...]}; printed to `out`
 * as two tables, too, unless that is NULL. */
json_t *bench_table(FILE *out, const char *shape, const struct bench_records *r);

#endif
