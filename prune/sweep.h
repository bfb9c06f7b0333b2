/* The sweep: many variants of one model taken through its units side by side. State 0 is the model as it is, the others are
 * variants that have left out one unit each, so that every weight is read and decoded once for all of them. */
#ifndef ESPALIER_PRUNE_SWEEP_H
#define ESPALIER_PRUNE_SWEEP_H

#include "core/base/progress.h"
#include "core/model/lm.h"
#include "data/calibration.h"

struct sweep {
    struct lm lm;
    const struct calibration *cal;
    struct progress *progress;
    float *states; /* [max_states][rows, dim] */
    int64_t max_states, rows, state_floats;
    int64_t done; /* sequences taken through a block so far, for progress */
};

/* Room for max_states states of cal's rows, which must fit into memory: max_states x rows x dim floats. */
int sweep_open(struct sweep *s, const struct model *m, const struct compute *c, const struct lora_set *lora,
               const struct calibration *cal, int64_t max_states, struct progress *progress, struct err *err);
void sweep_close(struct sweep *s);

static inline float *sweep_state(const struct sweep *s, int64_t k)
{
    return s->states + k * s->state_floats;
}

/* State 0 = the embeddings of the calibration rows. */
int sweep_embed(struct sweep *s, struct err *err);

/* Copies n states, by all threads. */
void sweep_copy(const struct sweep *s, float *to, const float *from, int64_t n);

/* Takes states [first, first + n) through these halves of the block in `slot`. A state's result does not depend on which others go
 * with it as long as `first` and the states between are the same; state 0 therefore always goes alone. */
void sweep_advance(struct sweep *s, int64_t slot, unsigned parts, int64_t first, int64_t n);

/* Losses nll [cal->n, cal->len - 1] of one state, which is used up, and their mean. */
int sweep_finish(struct sweep *s, float *nll, double *mean, int64_t state, struct err *err);

/* How many sequences through a block the head of one state costs, about; for progress. */
int64_t sweep_head_cost(const struct sweep *s);

#endif
