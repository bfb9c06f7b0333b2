/* What a comparison says of where it comes from: in words for its page, and under the names of every result for programs. */
#ifndef ESPALIER_CLI_COMPARISON_FACTS_H
#define ESPALIER_CLI_COMPARISON_FACTS_H

#include "cli/comparison.h"
#include "cli/tasks.h"
#include "cli/texts.h"

enum { MAX_FACTS = 32, FACT_SIZE = 512, FACT_NAME = 128, PART_SIZE = 128 };

struct facts {
    const char *pair[MAX_FACTS][2];
    char name[MAX_FACTS][FACT_NAME], text[MAX_FACTS][FACT_SIZE];
    int64_t n;
};

/* What a comparison was made of. */
struct comparison_origin {
    const struct comparison *k;
    const struct calibration *cal;
    const struct eval_tasks *tasks;
    const struct comparison_text *sources; /* [k->n_texts] */
    int64_t seed;
};

void comparison_text_set(struct comparison_text *to, const struct eval_text *t, const struct ppl_result *measured);

/* "first 3,072 of 304,896 tokens", or "304,896 tokens". */
const char *comparison_text_part(char out[PART_SIZE], const struct comparison_text *t);

/* result: session_facts. */
void comparison_facts(struct facts *f, const struct comparison_origin *from, const json_t *result);

/* The facts of the result, of the calibration, and each text's; a new object. */
json_t *comparison_record(const struct comparison_origin *from, const json_t *result);

#endif
