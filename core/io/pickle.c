/* A stack machine over a subset of pickle's opcodes. Source: the comments of pickletools.py in Python's standard library.
 * Each opcode adds at most one value and takes at least one byte, so memory is bounded by the length of the pickle. */
#include "core/io/pickle.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

enum {
    MAX_BYTES = 4 << 20,  /* a checkpoint of a thousand tensors has 0.3 MB */
    MAX_STACK = 1 << 16,  /* dicts and lists are written in batches of 1,000 */
    MAX_MARKS = 32,       /* open brackets; torch.save needs four */
    NOTHING = UINT32_MAX, /* no value */
};

enum opcode {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_NONE = 'N',
    OP_TRUE = 0x88,
    OP_FALSE = 0x89,
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_LONG1 = 0x8a,
    OP_BINFLOAT = 'G',
    OP_BINUNICODE = 'X',
    OP_SHORT_BINUNICODE = 0x8c,
    OP_BINUNICODE8 = 0x8d,
    OP_EMPTY_TUPLE = ')',
    OP_TUPLE = 't',
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_EMPTY_LIST = ']',
    OP_APPEND = 'a',
    OP_APPENDS = 'e',
    OP_EMPTY_DICT = '}',
    OP_SETITEM = 's',
    OP_SETITEMS = 'u',
    OP_GLOBAL = 'c',
    OP_STACK_GLOBAL = 0x93,
    OP_REDUCE = 'R',
    OP_NEWOBJ = 0x81,
    OP_BUILD = 'b',
    OP_BINPERSID = 'Q',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_MEMOIZE = 0x94,
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_PROTO = 0x80,
    OP_FRAME = 0x95,
    /* known, and refused by name */
    OP_INST = 'i',
    OP_OBJ = 'o',
    OP_NEWOBJ_EX = 0x92,
    OP_EXT1 = 0x82,
    OP_EXT2 = 0x83,
    OP_EXT4 = 0x84,
    OP_PERSID = 'P',
};

struct machine {
    struct pickle *p;
    const uint8_t *data;
    size_t n, at;
    uint32_t *stack; /* [MAX_STACK] value indices */
    uint32_t depth;
    uint32_t marks[MAX_MARKS]; /* depth of the stack at each open MARK */
    int n_marks;
    uint32_t *memo; /* [memo_cap] value indices or NOTHING */
    uint32_t memo_cap, memo_next;
    struct err *err;
};

static int broken(struct machine *m, const char *what)
{
    return err_set(m->err, "%s: damaged pickle: %s at byte %zu", m->p->label, what, m->at);
}

static const uint8_t *take(struct machine *m, uint64_t n)
{
    if (n > m->n - m->at) {
        broken(m, "it ends too early");
        return NULL;
    }
    const uint8_t *p = m->data + m->at;
    m->at += (size_t)n;
    return p;
}

/* A little-endian number of a few bytes. */
static int take_uint(uint64_t *v, struct machine *m, int bytes)
{
    const uint8_t *p = take(m, (uint64_t)bytes);
    *v = 0;
    if (!p)
        return -1;
    memcpy(v, p, (size_t)bytes);
    return 0;
}

/* ---- values, stack, memo ---- */

/* Room for `more` elements behind n. Their numbers stay below MAX_BYTES (see the head of this file), so nothing overflows. */
static int reserve(void *array, uint32_t *cap, uint32_t n, uint32_t more, size_t size, struct machine *m)
{
    void **p = array;
    if (more <= *cap - n)
        return 0;
    uint32_t grown_cap = 2 * (n + more) + 64;
    void *grown = realloc(*p, grown_cap * size);
    if (!grown)
        return err_set(m->err, "%s: out of memory", m->p->label);
    *p = grown;
    *cap = grown_cap;
    return 0;
}

static int push_index(struct machine *m, uint32_t index)
{
    if (m->depth == MAX_STACK)
        return err_set(m->err, "%s: more than %d values on the stack of the pickle", m->p->label, MAX_STACK);
    m->stack[m->depth++] = index;
    return 0;
}

static int push(struct machine *m, struct pickle_value v)
{
    struct pickle *p = m->p;
    if (reserve(&p->values, &p->cap_values, p->n_values, 1, sizeof v, m) != 0)
        return -1;
    p->values[p->n_values] = v;
    return push_index(m, p->n_values++);
}

/* The height that the stack keeps until the last mark is taken off. */
static uint32_t floor_of(const struct machine *m)
{
    return m->n_marks ? m->marks[m->n_marks - 1] : 0;
}

/* Takes n values off the stack, which must lie above the last mark; they are at m->stack[m->depth] and on. */
static int drop(struct machine *m, uint32_t n)
{
    if (n > m->depth - floor_of(m))
        return broken(m, "too few values on the stack");
    m->depth -= n;
    return 0;
}

/* Takes all values above the last mark off, and the mark. */
static int drop_to_mark(uint32_t *n, struct machine *m)
{
    if (!m->n_marks)
        return broken(m, "no mark on the stack");
    uint32_t floor = m->marks[--m->n_marks];
    *n = m->depth - floor;
    m->depth = floor;
    return 0;
}

/* The value on top of the stack, which must be of that kind. */
static struct pickle_value *top(struct machine *m, enum pickle_kind kind)
{
    struct pickle_value *v = m->depth > floor_of(m) ? &m->p->values[m->stack[m->depth - 1]] : NULL;
    if (v && v->kind == kind)
        return v;
    broken(m, kind == PICKLE_DICT ? "a dict was expected" : kind == PICKLE_LIST ? "a list was expected" : "a name was expected");
    return NULL;
}

static int memo_put(struct machine *m, uint64_t k)
{
    uint32_t cap = m->memo_cap;
    if (m->depth == floor_of(m))
        return broken(m, "nothing to remember");
    if (k >= m->n) /* fewer values than bytes */
        return broken(m, "an impossible number in the memo");
    if (k >= cap) {
        if (reserve(&m->memo, &m->memo_cap, 0, (uint32_t)k + 1, sizeof *m->memo, m) != 0)
            return -1;
        memset(m->memo + cap, 0xff, (m->memo_cap - cap) * sizeof *m->memo);
    }
    m->memo[k] = m->stack[m->depth - 1];
    m->memo_next++;
    return 0;
}

static int memo_get(struct machine *m, uint64_t k)
{
    if (k >= m->memo_cap || m->memo[k] == NOTHING)
        return broken(m, "a memo that was never filled");
    return push_index(m, m->memo[k]);
}

/* ---- opcodes; each group returns 1 for one that is not its own ---- */

static int read_text(struct machine *m, int length_bytes)
{
    uint64_t n;
    const uint8_t *p;
    if (take_uint(&n, m, length_bytes) != 0 || !(p = take(m, n)))
        return -1;
    return push(m, (struct pickle_value){.kind = PICKLE_TEXT, .n = (uint32_t)n, .text = (const char *)p});
}

static int read_int(struct machine *m, int bytes, bool is_signed)
{
    uint64_t v;
    if (bytes > 8)
        return broken(m, "a number of more than 8 bytes");
    if (take_uint(&v, m, bytes) != 0)
        return -1;
    if (is_signed && bytes > 0 && bytes < 8 && v >> (8 * bytes - 1))
        v |= UINT64_MAX << 8 * bytes;
    return push(m, (struct pickle_value){.kind = PICKLE_INT, .i = (int64_t)v});
}

static int scalar(struct machine *m, int op)
{
    uint64_t v;
    double f;
    switch (op) {
    case OP_NONE: return push(m, (struct pickle_value){.kind = PICKLE_NONE});
    case OP_TRUE:
    case OP_FALSE: return push(m, (struct pickle_value){.kind = PICKLE_BOOL, .i = op == OP_TRUE});
    case OP_BININT: return read_int(m, 4, true);
    case OP_BININT1: return read_int(m, 1, false);
    case OP_BININT2: return read_int(m, 2, false);
    case OP_LONG1: return take_uint(&v, m, 1) != 0 ? -1 : read_int(m, (int)v, true);
    case OP_BINUNICODE: return read_text(m, 4);
    case OP_SHORT_BINUNICODE: return read_text(m, 1);
    case OP_BINUNICODE8: return read_text(m, 8);
    case OP_BINFLOAT:
        if (take_uint(&v, m, 8) != 0)
            return -1;
        v = __builtin_bswap64(v); /* the only number that is written big-endian */
        memcpy(&f, &v, 8);
        return push(m, (struct pickle_value){.kind = PICKLE_FLOAT, .f = f});
    default: return 1;
    }
}

/* The n values that were just dropped become a tuple. */
static int make_tuple(struct machine *m, uint32_t n)
{
    struct pickle *p = m->p;
    if (reserve(&p->cells, &p->cap_cells, p->n_cells, n, sizeof *p->cells, m) != 0)
        return -1;
    uint32_t first = p->n_cells;
    for (uint32_t k = 0; k < n; k++)
        p->cells[p->n_cells++] = (struct pickle_cell){.key = NOTHING, .value = m->stack[m->depth + k], .next = NOTHING};
    return push(m, (struct pickle_value){.kind = PICKLE_TUPLE, .n = n, .first = first});
}

/* The n values that were just dropped are keys and values of the dict below them. */
static int set_items(struct machine *m, uint32_t n)
{
    struct pickle *p = m->p;
    struct pickle_value *dict = top(m, PICKLE_DICT);
    if (!dict)
        return -1;
    if (n % 2)
        return broken(m, "a key without a value");
    if (reserve(&p->cells, &p->cap_cells, p->n_cells, n / 2, sizeof *p->cells, m) != 0)
        return -1;
    for (uint32_t k = 0; k < n; k += 2) {
        uint32_t c = p->n_cells++;
        p->cells[c] = (struct pickle_cell){m->stack[m->depth + k], m->stack[m->depth + k + 1], NOTHING};
        if (dict->n++)
            p->cells[dict->tail].next = c;
        else
            dict->head = c;
        dict->tail = c;
    }
    return 0;
}

static int collection(struct machine *m, int op)
{
    uint32_t n = 0;
    switch (op) {
    case OP_MARK:
        if (m->n_marks == MAX_MARKS)
            return err_set(m->err, "%s: the pickle is nested deeper than %d", m->p->label, MAX_MARKS);
        m->marks[m->n_marks++] = m->depth;
        return 0;
    case OP_EMPTY_TUPLE: return make_tuple(m, 0);
    case OP_TUPLE: return drop_to_mark(&n, m) != 0 ? -1 : make_tuple(m, n);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3: n = (uint32_t)(op - OP_TUPLE1) + 1; return drop(m, n) != 0 ? -1 : make_tuple(m, n);
    case OP_EMPTY_LIST: return push(m, (struct pickle_value){.kind = PICKLE_LIST});
    case OP_APPEND: return drop(m, 1) != 0 || !top(m, PICKLE_LIST) ? -1 : 0;
    case OP_APPENDS: return drop_to_mark(&n, m) != 0 || !top(m, PICKLE_LIST) ? -1 : 0;
    case OP_EMPTY_DICT: return push(m, (struct pickle_value){.kind = PICKLE_DICT});
    case OP_SETITEM: return drop(m, 2) != 0 ? -1 : set_items(m, 2);
    case OP_SETITEMS: return drop_to_mark(&n, m) != 0 ? -1 : set_items(m, n);
    default: return 1;
    }
}

static int refuse_name(struct machine *m, const char *module, size_t module_n, const char *name, size_t name_n)
{
    return err_set(m->err, "%s: %.*s.%.*s is not something this reader calls", m->p->label, (int)(module_n < 80 ? module_n : 80),
                   module, (int)(name_n < 80 ? name_n : 80), name);
}

static int push_name(struct machine *m, const char *module, size_t module_n, const char *name, size_t name_n)
{
    for (int k = 0; k < m->p->n_names; k++) {
        const struct pickle_name *e = &m->p->names[k];
        if (strlen(e->module) == module_n && strlen(e->name) == name_n && !memcmp(e->module, module, module_n) &&
            !memcmp(e->name, name, name_n))
            return push(m, (struct pickle_value){.kind = PICKLE_NAME, .n = (uint32_t)k});
    }
    return refuse_name(m, module, module_n, name, name_n);
}

/* The rest of a line, without its end. */
static const char *take_line(struct machine *m, size_t *n)
{
    const uint8_t *start = m->data + m->at, *end = memchr(start, '\n', m->n - m->at);
    *n = end ? (size_t)(end - start) : m->n;
    return take(m, (uint64_t)*n + 1) ? (const char *)start : NULL;
}

static int global(struct machine *m, int op)
{
    const char *module, *name;
    size_t module_n, name_n;
    if (op == OP_STACK_GLOBAL) {
        if (drop(m, 2) != 0)
            return -1;
        const struct pickle_value *a = &m->p->values[m->stack[m->depth]], *b = &m->p->values[m->stack[m->depth + 1]];
        if (a->kind != PICKLE_TEXT || b->kind != PICKLE_TEXT)
            return broken(m, "a name that is no text");
        return push_name(m, a->text, a->n, b->text, b->n);
    }
    if (!(module = take_line(m, &module_n)) || !(name = take_line(m, &name_n)))
        return -1;
    if (op == OP_INST)
        return refuse_name(m, module, module_n, name, name_n);
    return push_name(m, module, module_n, name, name_n);
}

/* Records the call of a name with a tuple of arguments; an OrderedDict is a dict from here on. */
static int call(struct machine *m)
{
    if (drop(m, 1) != 0)
        return -1;
    uint32_t args = m->stack[m->depth];
    struct pickle_value *name = top(m, PICKLE_NAME);
    if (!name)
        return -1;
    if (m->p->values[args].kind != PICKLE_TUPLE)
        return broken(m, "arguments that are no tuple");
    const struct pickle_name *e = &m->p->names[name->n];
    uint32_t k = name->n;
    m->depth--;
    if (e->use == PICKLE_CALLABLE)
        return push(m, (struct pickle_value){.kind = PICKLE_CALL, .n = k, .of = args});
    if (e->use == PICKLE_MAKES_DICT && m->p->values[args].n == 0)
        return push(m, (struct pickle_value){.kind = PICKLE_DICT, .ordered = true});
    if (e->use == PICKLE_MAKES_DICT)
        return broken(m, "a dict made from arguments");
    return refuse_name(m, e->module, strlen(e->module), e->name, strlen(e->name));
}

/* torch hangs _metadata on the state dict: versions of modules, which do not matter here. Anything else is refused. */
static int build(struct machine *m)
{
    if (drop(m, 1) != 0)
        return -1;
    const struct pickle_value *state = &m->p->values[m->stack[m->depth]];
    const struct pickle_value *v = m->depth > floor_of(m) ? &m->p->values[m->stack[m->depth - 1]] : NULL;
    if (!v || v->kind != PICKLE_DICT || !v->ordered || state->kind != PICKLE_DICT)
        return err_set(m->err, "%s: opcode BUILD at byte %zu: only attributes of an OrderedDict were expected", m->p->label,
                       m->at - 1);
    return 0;
}

static int object(struct machine *m, int op)
{
    switch (op) {
    case OP_GLOBAL:
    case OP_STACK_GLOBAL:
    case OP_INST: return global(m, op);
    case OP_REDUCE:
    case OP_NEWOBJ: return call(m);
    case OP_BUILD: return build(m);
    case OP_BINPERSID:
        if (drop(m, 1) != 0)
            return -1;
        return push(m, (struct pickle_value){.kind = PICKLE_PERSISTENT, .of = m->stack[m->depth]});
    default: return 1;
    }
}

static int memory(struct machine *m, int op)
{
    uint64_t k;
    switch (op) {
    case OP_BINPUT: return take_uint(&k, m, 1) != 0 ? -1 : memo_put(m, k);
    case OP_LONG_BINPUT: return take_uint(&k, m, 4) != 0 ? -1 : memo_put(m, k);
    case OP_MEMOIZE: return memo_put(m, m->memo_next);
    case OP_BINGET: return take_uint(&k, m, 1) != 0 ? -1 : memo_get(m, k);
    case OP_LONG_BINGET: return take_uint(&k, m, 4) != 0 ? -1 : memo_get(m, k);
    case OP_PROTO:
        if (take_uint(&k, m, 1) != 0)
            return -1;
        if (k < 2 || k > 5)
            return err_set(m->err, "%s: pickle protocol %d is not supported (2 to 5 are)", m->p->label, (int)k);
        return 0;
    case OP_FRAME:
        if (take_uint(&k, m, 8) != 0)
            return -1;
        return k > m->n - m->at ? broken(m, "a frame that goes past the end") : 0;
    default: return 1;
    }
}

static int refuse(struct machine *m, int op)
{
    static const struct {
        int op;
        const char *name;
    } known[] = {{OP_OBJ, "OBJ"},   {OP_NEWOBJ_EX, "NEWOBJ_EX"}, {OP_EXT1, "EXT1"},
                 {OP_EXT2, "EXT2"}, {OP_EXT4, "EXT4"},           {OP_PERSID, "PERSID"}};
    const char *name = "";
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (known[k].op == op)
            name = known[k].name;
    return err_set(m->err, "%s: opcode 0x%02x%s%s at byte %zu is not one this reader obeys", m->p->label, (unsigned)op,
                   *name ? " " : "", name, m->at - 1);
}

static int execute(struct machine *m)
{
    for (;;) {
        const uint8_t *p = take(m, 1);
        if (!p)
            return -1;
        int op = *p, rc = 1;
        if (op == OP_STOP)
            break;
        static int (*const groups[])(struct machine *, int) = {scalar, memory, collection, object};
        for (size_t g = 0; g < sizeof groups / sizeof *groups && rc == 1; g++)
            rc = groups[g](m, op);
        if (rc != 0)
            return rc < 0 ? -1 : refuse(m, op);
    }
    if (m->depth != 1 || m->n_marks)
        return broken(m, "more or less than one value");
    if (m->at != m->n)
        return broken(m, "something behind its end");
    m->p->root = m->stack[0];
    return 0;
}

int pickle_read(struct pickle *p, const uint8_t *data, size_t n, const struct pickle_name *names, int n_names, const char *label,
                struct err *err)
{
    *p = (struct pickle){.label = label, .names = names, .n_names = n_names};
    struct machine m = {.p = p, .data = data, .n = n, .err = err};
    if (n > MAX_BYTES)
        return err_set(err, "%s: a pickle of %zu bytes; a state dict of at most %d was expected", label, n, MAX_BYTES);
    m.stack = mem_alloc(MAX_STACK, sizeof *m.stack, err);
    int rc = m.stack ? execute(&m) : -1;
    free(m.memo);
    free(m.stack);
    return rc;
}

void pickle_free(struct pickle *p)
{
    free(p->values);
    free(p->cells);
    *p = (struct pickle){0};
}

const struct pickle_value *pickle_element(const struct pickle *p, const struct pickle_value *tuple, uint32_t k)
{
    return &p->values[p->cells[tuple->first + k].value];
}

bool pickle_is_text(const struct pickle_value *v, const char *text)
{
    return v->kind == PICKLE_TEXT && v->n == strlen(text) && !memcmp(v->text, text, v->n);
}

const char *pickle_describe(const struct pickle_value *v)
{
    static const char *const kinds[] = {"None",           "a truth value", "a whole number", "a float", "a text",
                                        "a tuple",        "a list",        "a dict",         "a class", "the result of a call",
                                        "a stored object"};
    return kinds[v->kind];
}
