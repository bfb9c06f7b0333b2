/* What engine.c (jobs, the queue, the thread) and engine_step.c (slots and steps) share; speed.c times the steps of a lane. */
#ifndef ESPALIER_EVAL_ENGINE_IMPL_H
#define ESPALIER_EVAL_ENGINE_IMPL_H

#include "eval/engine.h"

/* What is told of one token. */
struct told {
    float *logprob;        /* [n] */
    struct candidate *top; /* [n, ask.top] or NULL */
};

/* One sequence from submission to release. */
struct sequence {
    struct ask ask;
    struct job *job;
    struct sequence *next; /* in the queue */
    uint64_t order;        /* of admission */
    /* the compute thread's */
    struct rng rng;
    int64_t produced;
    int64_t reused;              /* positions of the prompt that were in a cache */
    int32_t *ids;                /* [max_tokens] */
    struct told told, of_prompt; /* of new tokens; of the prompt's */
    enum finish ending;          /* RUNNING until the last token is there */
    /* under the engine's lock */
    bool cancelled;
    struct job_state state;
};

/* A KV cache and what is in it. */
struct slot {
    struct kv_cache kv;
    int32_t *ids;         /* [kv.cap]: those of [0, kv.len) */
    int64_t whole;        /* positions from 0 on that came as whole tiles of packed prompt rows */
    struct sequence *seq; /* or NULL: free */
    uint64_t used;        /* when it was taken last */
};

/* A row whose logits choose a token. */
struct pick {
    struct slot *slot;
    int64_t row; /* of the batch */
};

/* One variant with its slots and buffers. */
struct lane {
    const struct engine_variant *v;
    struct compute compute; /* the caller's; its kernels chosen for this many slots, so that no bit depends on how many are taken */
    struct lm lm;
    int64_t n_slots, n_running, prefill;
    struct slot *slots;
    struct slot **turn; /* [n_slots] those that run, in order of admission */
    int32_t *ids;       /* [lm.max_rows] */
    struct pick *picks; /* [n_slots] */
    int64_t n_picks;
    float *last;              /* [n_slots, dim]: the picked rows */
    float *logits;            /* [n_slots, vocab] */
    float *echoed;            /* [ECHO_ROWS, vocab] */
    struct sampler *samplers; /* [threads] */
    float *kv;                /* of all slots */
    size_t kv_bytes;
    struct arena arena;
};

enum { ECHO_ROWS = 64 };

int lane_open(struct lane *l, const struct engine_variant *v, const struct compute *c, const struct engine_limits *limits,
              struct err *err);
void lane_close(struct lane *l);

/* Takes the free slot that holds most of the prompt; false where none is free. */
bool lane_admit(struct lane *l, struct sequence *s, uint64_t now);

/* Frees the slots of sequences that are cancelled or have ended. */
void lane_leave(struct lane *l, struct slot *slot);

/* Empties the caches of free slots: nothing of an earlier prompt is used again. */
void lane_forget(struct lane *l);

/* One forward; sequences gain tokens and may end. Returns the rows it took; *prompt_rows are those of prompts. */
int64_t lane_step(struct lane *l, int64_t *prompt_rows);

/* Bytes of one slot's cache. */
size_t lane_slot_bytes(const struct engine_variant *v, int64_t context);

#endif
