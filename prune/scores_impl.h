/* The two forms of a score file. */
#ifndef ESPALIER_PRUNE_SCORES_IMPL_H
#define ESPALIER_PRUNE_SCORES_IMPL_H

#include "prune/scores.h"

/* What is written beside the scores themselves. */
struct ranking {
    int64_t *order;     /* [n] positions */
    int64_t *protected; /* [n_protected] positions */
    int64_t n_protected;
};

int scores_write_json(struct file_writer *w, const char *path, const struct scores *s, const struct ranking *r,
                      const struct calibration *cal, const json_t *facts, struct err *err);
int scores_write_h5(struct file_writer *out, const char *path, const struct scores *s, const struct ranking *r,
                    const struct calibration *cal, const json_t *facts, struct err *err);

/* Fill a zeroed s; what was read is checked by the caller, who also releases s on failure. */
int scores_read_json(struct scores *s, const char *path, struct err *err);
int scores_read_h5(struct scores *s, const char *path, struct err *err);

/* Room for n units read from a file. */
int scores_room(struct scores *s, int64_t n, struct err *err);

#endif
