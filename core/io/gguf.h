/* GGUF metadata (v2 and v3), from the format's public specification. Strings are views into the mapped file. */
#ifndef ESPALIER_IO_GGUF_H
#define ESPALIER_IO_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT,
};

struct gguf_string {
    const char *s; /* not NUL-terminated */
    size_t n;
};

/* One key. Scalars sit in i and f; for GGUF_ARRAY, element_type and count describe `data` (fixed-size little-endian elements)
 * or `strings`. Arrays of arrays are refused. */
struct gguf_value {
    struct gguf_string key;
    enum gguf_type type;
    int64_t i;
    double f;
    struct gguf_string string;
    enum gguf_type element_type;
    uint64_t count;
    const uint8_t *data;
    const struct gguf_string *strings;
};

struct gguf {
    const char *file;
    uint32_t version;
    struct gguf_value *values;
    uint64_t n_values;
};

/* The value of a key, or NULL. */
const struct gguf_value *gguf_find(const struct gguf *g, const char *key);

/* Scalars of any integer or float type as the type asked for; false when the key is absent or of another kind. */
bool gguf_int(int64_t *out, const struct gguf *g, const char *key);
bool gguf_float(double *out, const struct gguf *g, const char *key);
bool gguf_bool(bool *out, const struct gguf *g, const char *key);
bool gguf_text(struct gguf_string *out, const struct gguf *g, const char *key);

/* As gguf_int and gguf_float, for keys that are one number: an absent one leaves *out alone and is an error only where `needed`; an
 * array of equal numbers, one for each block, is that number; an array of different ones, or another type, is an error. */
int gguf_one_int(int64_t *out, const struct gguf *g, const char *key, bool needed, struct err *err);
int gguf_one_float(double *out, const struct gguf *g, const char *key, bool needed, struct err *err);

/* Bytes of a type of fixed size; 0 for the others. */
size_t gguf_type_bytes(enum gguf_type t);

/* The dtype of ggml's number for a tensor's type, or -1. */
enum { GGUF_LARGEST_NUMBER = 30 };
int gguf_dtype_of_number(uint32_t number);

/* Element k of an array of integers. */
int64_t gguf_array_int(const struct gguf_value *v, uint64_t k);

#endif
