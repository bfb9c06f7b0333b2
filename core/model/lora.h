/* A LoRA adapter for the blocks that run: created, read from and written to PEFT folders. */
#ifndef ESPALIER_MODEL_LORA_H
#define ESPALIER_MODEL_LORA_H

#include "core/base/rng.h"
#include "core/model/model.h"

struct lora_set {
    int64_t rank;
    double alpha, dropout;
    bool target[PROJ_COUNT];
    int64_t n_blocks;          /* numbered as the model's `order`: block k of the adapter belongs to the k-th block that runs */
    struct block_lora *blocks; /* [n_blocks] */
    float *params, *grads;     /* [n_params]: every A and B in one buffer; grads is NULL when not training */
    int64_t n_params;
    struct arena arena;
    bool other_base; /* read from a folder that names other weights as those it was trained on */
};

/* An adapter of zeros for m's current order. with_grads also makes room for gradients. */
int lora_create(struct lora_set *l, const struct model *m, int64_t rank, double alpha, double dropout,
                const bool target[PROJ_COUNT], bool with_grads, struct err *err);

/* PEFT's start: A uniform in +-1/sqrt(inputs) (Kaiming uniform with a = sqrt 5), B zero. */
void lora_init(struct lora_set *l, const struct model *m, struct rng *rng);

/* Reads a PEFT folder (adapter_config.json, adapter_model.safetensors) for m's current order; see lora_base.h for espalier.json. */
int lora_load(struct lora_set *l, const struct model *m, const char *dir, bool with_grads, struct err *err);

/* Writes a PEFT folder's two files and espalier.json into `dir`, which must exist; each file whole or not at all. */
int lora_save(const struct lora_set *l, const struct model *m, const char *dir, struct err *err);

/* "q,k,v,o,gate,up,down" to flags. */
int lora_parse_targets(bool target[PROJ_COUNT], const char *list, struct err *err);

void lora_free(struct lora_set *l);

#endif
