/* Tokenizers: byte-level BPE from a tokenizer.json or from GGUF metadata. */
#ifndef ESPALIER_IO_TOKENIZER_H
#define ESPALIER_IO_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

struct tokenizer;
struct gguf;

/* A growing list of ids. Zero-initialise; free ids with free(). */
struct ids {
    int32_t *ids;
    size_t n, cap;
};
int ids_push(struct ids *list, int32_t id, struct err *err);

/* Opens the tokenizer of MODEL: a Hugging Face folder (tokenizer.json, tokenizer_config.json), a bare tokenizer.json, or a
 * GGUF file (a vocabulary-only one too). Free with tokenizer_free, which accepts NULL. */
int tokenizer_open(struct tokenizer **out, const char *path, struct err *err);
void tokenizer_free(struct tokenizer *t);

/* Appends the ids of text[n] (any bytes). Added and special tokens in the text are recognised; none is added. A byte that the
 * vocabulary has no token for is dropped, as the reference does, unless tokenizer.json names an unknown token for it. Bytes that
 * are not UTF-8 are words of their own. */
int tokenizer_encode(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err);

/* The bytes of ids[n] in a malloc'ed, NUL-terminated buffer; special tokens are spelled out. An id outside the vocabulary is an
 * error. The bytes need not be valid UTF-8. */
int tokenizer_decode(char **text, size_t *n_text, const struct tokenizer *t, const int32_t *ids, size_t n, struct err *err);

/* The text of one chat in a malloc'ed string. messages is a jansson array of {"role", "content"}. The template is the model's
 * own where it is one that is known by its markers, else an error names what was found. */
struct json_t;
int tokenizer_chat(char **text, const struct tokenizer *t, const struct json_t *messages, bool generation_prompt, struct err *err);

/* Token ids; -1 where the tokenizer has none. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);

/* Whether the tokenizer's own convention puts BOS before every text (add_bos_token). */
bool tokenizer_adds_bos(const struct tokenizer *t);

int64_t tokenizer_vocab_size(const struct tokenizer *t); /* largest id + 1 */
const char *tokenizer_kind(const struct tokenizer *t);   /* "bpe" */

/* Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and generation_config.json for a Hugging Face folder
 * into `dir`: copied where the tokenizer came from such files, generated where it came from a GGUF. Loads in transformers'
 * AutoTokenizer. */
int tokenizer_save(const struct tokenizer *t, const char *dir, struct err *err);

#endif
