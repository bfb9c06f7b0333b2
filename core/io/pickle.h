/* Python's pickles as plain data. Nothing is executed or imported: a name must be on the caller's list, and a call is recorded as
 * its name and arguments. What torch.save writes is understood (protocol 2, and the opcodes that protocols 3 to 5 put in their
 * place); every other opcode is refused. Nothing recurses, so that deep or self-containing values are no danger. */
#ifndef ESPALIER_IO_PICKLE_H
#define ESPALIER_IO_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_FLOAT,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST, /* what is in it is not kept: no tensor is described by one */
    PICKLE_DICT,
    PICKLE_NAME,       /* a class or function by name */
    PICKLE_CALL,       /* what a name returned, were it called */
    PICKLE_PERSISTENT, /* an object kept outside, by the value that stands for it */
};

/* A name that a pickle may hold, and what may be done with it. */
struct pickle_name {
    const char *module, *name;
    enum { PICKLE_MENTION, PICKLE_CALLABLE, PICKLE_MAKES_DICT } use;
};

/* Values refer to others by index: into values[] (one value) or cells[] (the elements of a tuple, the entries of a dict). */
struct pickle_value {
    enum pickle_kind kind;
    uint32_t n; /* bytes of a text, elements of a tuple, entries of a dict, index of the name of a NAME or CALL */
    union {
        int64_t i;        /* BOOL, INT */
        double f;         /* FLOAT */
        const char *text; /* TEXT: not NUL-terminated, a view into the pickle */
        uint32_t first;   /* TUPLE: the first of n cells in a row */
        uint32_t of;      /* CALL: value index of the tuple of arguments; PERSISTENT: of the id */
        struct {
            uint32_t head, tail; /* DICT: a chain of n cells */
        };
    };
    bool ordered; /* DICT: an OrderedDict, the only object that may get attributes (which are passed over) */
};

struct pickle_cell {
    uint32_t key, value; /* value indices; a tuple has no keys */
    uint32_t next;
};

struct pickle {
    const char *label; /* file and entry, for messages */
    const struct pickle_name *names;
    int n_names;
    struct pickle_value *values;
    struct pickle_cell *cells;
    uint32_t n_values, n_cells, cap_values, cap_cells;
    uint32_t root; /* value index of the whole */
};

/* Reads a pickle of n bytes, which must outlive p, as must label and names. Release with pickle_free, also after an error. */
int pickle_read(struct pickle *p, const uint8_t *data, size_t n, const struct pickle_name *names, int n_names, const char *label,
                struct err *err);
void pickle_free(struct pickle *p);

/* Element k of a tuple of more than k elements. */
const struct pickle_value *pickle_element(const struct pickle *p, const struct pickle_value *tuple, uint32_t k);

/* Whether a value is this text. */
bool pickle_is_text(const struct pickle_value *v, const char *text);

/* "a dict", "a whole number", ... for messages. */
const char *pickle_describe(const struct pickle_value *v);

#endif
