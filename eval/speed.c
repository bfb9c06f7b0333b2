#include "eval/speed.h"

#include <math.h>
#include <stdlib.h>

int64_t speed_bytes_per_token(const struct model *m)
{
    size_t n = (size_t)m->head.w.rows * m->head.w.row_bytes + m->embed.row_bytes;
    for (int64_t k = 0; k < m->n_order; k++)
        for (int p = 0; p < PROJ_COUNT; p++) {
            const struct block *b = &m->blocks[m->order[k]];
            if (b->parts & proj_part((enum proj)p))
                n += (size_t)b->proj[p].rows * (b->proj[p].row_bytes + (b->proj[p].scale ? sizeof(float) : 0));
        }
    return (int64_t)n;
}

/* One run: seconds for the prompt, and for the out_len - 1 steps after the first token. */
static int one_run(double *prefill, double *decode, struct generator *g, const int32_t *prompt, int64_t n_prompt, int64_t out_len,
                   struct err *err)
{
    static const struct sampling greedy = {0};
    double start = clock_seconds();
    generator_reset(g);
    if (generator_feed(g, prompt, n_prompt, err) != 0)
        return -1;
    int32_t id = generator_pick(g, &greedy, NULL);
    double first = clock_seconds();
    for (int64_t i = 1; i < out_len; i++) {
        if (generator_feed(g, &id, 1, err) != 0)
            return -1;
        id = generator_pick(g, &greedy, NULL);
    }
    *prefill = first - start;
    *decode = clock_seconds() - first;
    return 0;
}

int speed_measure(struct speed_result *r, const struct model *m, const struct compute *c, const struct lora_set *lora,
                  const int32_t *prompt, int64_t n_prompt, int64_t out_len, int64_t warmup, int64_t runs, struct progress *progress,
                  struct err *err)
{
    struct generator g;
    *r = (struct speed_result){.bytes_per_token = speed_bytes_per_token(m)};
    if (out_len < 2 || runs < 1 || warmup < 0)
        return err_usage(err, "at least 2 new tokens and 1 timed run were expected");
    if (generator_open(&g, m, c, lora, n_prompt + out_len, err) != 0)
        return -1;
    int rc = -1;
    double sum = 0, squares = 0, prefill_sum = 0, decode_sum = 0;
    progress_begin(progress, "timing", warmup + runs, "runs");
    for (int64_t i = 0; i < warmup + runs; i++) {
        double prefill, decode;
        if (one_run(&prefill, &decode, &g, prompt, n_prompt, out_len, err) != 0)
            goto done;
        progress_update(progress, i + 1);
        if (i < warmup)
            continue;
        sum += prefill + decode;
        squares += (prefill + decode) * (prefill + decode);
        prefill_sum += prefill;
        decode_sum += decode;
    }
    progress_end(progress);
    double n = (double)runs;
    r->latency_s = sum / n;
    r->latency_std = runs > 1 ? sqrt(fmax(0, (squares - sum * sum / n) / (n - 1))) : 0;
    r->prefill_tok_s = (double)n_prompt * n / prefill_sum;
    r->decode_tok_s = (double)(out_len - 1) * n / decode_sum;
    r->throughput_tok_s = (double)out_len * n / sum;
    rc = 0;
done:
    generator_close(&g);
    return rc;
}
