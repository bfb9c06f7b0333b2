/* Tokenizers: byte-level BPE and LLaMA's BPE from a tokenizer.json, SentencePiece BPE from a tokenizer.model, and both kinds from
 * GGUF metadata. */
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

/* Opens the tokenizer of MODEL: a Hugging Face folder (tokenizer.json, else tokenizer.model; tokenizer_config.json), one of those
 * two files, a GGUF file (a vocabulary-only one too) or an HDF5 model. Free with tokenizer_free, which accepts NULL. */
int tokenizer_open(struct tokenizer **out, const char *path, struct err *err);
void tokenizer_free(struct tokenizer *t);

/* As tokenizer_open, but *out is NULL and nothing is wrong where there is no tokenizer. One that is there and cannot be read is an
 * error: what is made without it would be another model. */
int tokenizer_open_if_any(struct tokenizer **out, const char *path, struct err *err);

/* Says how many rows the model's embedding has: encoding to an id from there on is an error. (A vocabulary may hold tokens that were
 * added and are never used.) 0, as at first: all ids are fine. */
void tokenizer_set_limit(struct tokenizer *t, int64_t rows);

/* As tokenizer_open, but treats special tokens as the LlamaTokenizer of transformers did before its 5th version, with legacy=True:
 * see tokenizer_encode. Reads a folder's tokenizer.model even if it has a tokenizer.json. A tokenizer that is not SentencePiece's
 * is a usage error. */
int tokenizer_open_legacy(struct tokenizer **out, const char *path, struct err *err);

/* Appends the ids of text[n] (any bytes). No special token is added; those that the text spells out
 *   - are looked for first, in byte-level BPE and in LLaMA's tokenizer.json: added tokens, as that file describes each of them;
 *   - are text like any other for a tokenizer.model, as for the sentencepiece library;
 *   - for a tokenizer.model opened as legacy, divide the text: the unknown token, BOS, EOS and PAD. What is between them is encoded
 *     as if it were alone, so it begins with a dummy prefix (the blank that is put before a text) of its own;
 *   - do the same for a GGUF of the llama kind, opened either way, with all its control, unknown and user-defined tokens. That is
 *     llama.cpp's treatment where it parses special tokens.
 * A byte that a byte-level vocabulary has no token for is dropped, as the reference does, unless tokenizer.json names an unknown
 * token for it. Bytes that are not UTF-8 are words of their own there; the other kinds take each for U+FFFD. */
int tokenizer_encode(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err);

/* As tokenizer_encode, for what tokenizer_chat wrote: a tokenizer.model recognises its special tokens there in any case. */
int tokenizer_encode_chat(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err);

/* As tokenizer_encode, but what spells a special token is text like any other for every kind; only added tokens that are not
 * special are looked for. That is llama.cpp's treatment where it does not parse special tokens. */
int tokenizer_encode_literal(struct ids *out, const struct tokenizer *t, const char *text, size_t n, struct err *err);

/* The text of ids[n] in a malloc'ed, NUL-terminated buffer. An id outside the vocabulary is an error. Byte-level: special tokens
 * are spelled out, and the bytes need not be valid UTF-8. LLaMA's tokenizer.json: as its decoder says. SentencePiece: as the
 * library does, without the dummy prefix and control tokens. Byte tokens that make no UTF-8 become U+FFFD in both. */
int tokenizer_decode(char **text, size_t *n_text, const struct tokenizer *t, const int32_t *ids, size_t n, struct err *err);

/* The text of one chat in a malloc'ed string. messages is a jansson array of {"role", "content"}. The template is the model's
 * own where it is one that is known by its markers, else an error names what was found. */
struct json_t;
int tokenizer_chat(char **text, const struct tokenizer *t, const struct json_t *messages, bool generation_prompt, struct err *err);

/* The same by a format of this name ("chatml", "vicuna", "llama2", "alpaca") instead of the model's own; NULL is that. */
int tokenizer_chat_as(char **text, const struct tokenizer *t, const char *name, const struct json_t *messages,
                      bool generation_prompt, struct err *err);
bool tokenizer_chat_known(const char *name);
bool tokenizer_has_chat(const struct tokenizer *t);

/* The bytes that one token adds to a text, a dummy prefix included; `spare` holds those of a byte token. The id must be inside the
 * vocabulary. Returns how many. */
size_t tokenizer_token_bytes(const char **bytes, char spare[1], const struct tokenizer *t, int32_t id);

/* The tokens that end an answer: EOS, and whatever else the tokenizer's files, config.json and generation_config.json beside them, or a
 * GGUF's metadata (eot, eom) name as such. */
enum { TOKENIZER_MAX_ENDS = 16 };
struct tokenizer_ends {
    int32_t id[TOKENIZER_MAX_ENDS];
    int n;
};
const struct tokenizer_ends *tokenizer_ends(const struct tokenizer *t);

/* Whether the id is one of them; ends may be NULL: nothing ends an answer then. */
bool tokenizer_is_end(const struct tokenizer_ends *ends, int32_t id);

/* Token ids; -1 where the tokenizer has none. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);

/* Whether the tokenizer's own convention puts BOS before every text (add_bos_token). */
bool tokenizer_adds_bos(const struct tokenizer *t);

int64_t tokenizer_vocab_size(const struct tokenizer *t); /* largest id + 1 */
const char *tokenizer_kind(const struct tokenizer *t);   /* "bpe" or "sentencepiece" */

/* Writes tokenizer.json (or tokenizer.model), tokenizer_config.json, special_tokens_map.json and generation_config.json for a
 * Hugging Face folder into `dir`: copied where the tokenizer came from such files, generated (with a tokenizer.json) where it came
 * from a GGUF. Loads in transformers' AutoTokenizer. */
int tokenizer_save(const struct tokenizer *t, const char *dir, struct err *err);

/* The same files, one call each. */
typedef int tokenizer_sink(void *arg, const char *name, const void *data, size_t n, struct err *err);
int tokenizer_files(const struct tokenizer *t, tokenizer_sink *sink, void *arg, struct err *err);

/* Writes the keys "tokenizer.*" of a GGUF: those of the GGUF it came from as they are, else what llama.cpp takes for the same. A
 * vocabulary smaller than the model's is filled up with unused tokens. Refused where GGUF cannot say what the tokenizer does. */
struct gguf_writer;
int tokenizer_put_gguf(const struct tokenizer *t, struct gguf_writer *w, int64_t vocab_size, struct err *err);

#endif
