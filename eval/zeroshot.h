/* Zero-shot tasks: the model is right where the gold choice is the likeliest continuation. */
#ifndef ESPALIER_EVAL_ZEROSHOT_H
#define ESPALIER_EVAL_ZEROSHOT_H

#include "core/io/tokenizer.h"
#include "data/tasks.h"
#include "eval/likelihood.h"

struct zeroshot_document {
    double ll[TASK_MAX_CHOICES];
    bool acc;      /* the choice with the largest ll (the first of equals) is gold; greedy tasks: so is the greedy continuation */
    bool acc_norm; /* the same for ll / chars */
};

/* Standard errors are the sample standard deviation over the root of n, so not a number for n = 1. */
struct zeroshot_result {
    const struct task *task;
    int64_t n;
    double acc, acc_stderr, acc_norm, acc_norm_stderr;
    double perplexity;              /* greedy tasks: exp(-mean ll) */
    struct zeroshot_document *docs; /* [n] */
};

/* Results [variants], to be freed each with zeroshot_free. How texts become tokens (lm-evaluation-harness, _encode_pair):
 * white space at the end of the context belongs to the continuation; the continuation's tokens are those of both together behind as
 * many as the context alone has; what is longer than the model's context loses tokens at the left. An empty context is EOS (or BOS
 * where there is none). With bos (the habit of lm-eval 0.4) BOS goes first unless it is there, and is what an empty context is. */
int zeroshot_run(struct zeroshot_result *results, const struct task_set *set, const struct model *m, const struct compute *c,
                 const struct lora_set *lora, const struct tokenizer *t, const struct variants *v, bool bos,
                 struct progress *progress, struct err *err);
void zeroshot_free(struct zeroshot_result *r);

/* Checks that every choice can be scored, which may be long before it is. sha256: of all that its results depend on beside the
 * model: tokens, which of them are scored, lengths, and what is right. */
int zeroshot_check(char sha256[65], const struct task_set *set, const struct model *m, const struct tokenizer *t, bool bos,
                   struct err *err);

/* The metric that is published for the task, as a share of 1, and its standard error. */
double zeroshot_reported(const struct zeroshot_result *r);
double zeroshot_reported_stderr(const struct zeroshot_result *r);

/* The mean of the published metrics of one model, whose results on n tasks are `stride` apart, over the averaged ones (see
 * tasks_average). Its standard error takes the tasks for independent samples. NULL: not wanted. */
double zeroshot_average(double *std_error, const struct zeroshot_result *r, const bool *averaged, int64_t n, int64_t stride);

#endif
