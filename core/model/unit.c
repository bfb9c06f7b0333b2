#include "core/model/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

static const struct {
    const char *suffix;
    unsigned parts;
} forms[] = {{"", PARTS_ALL}, {".attn", PART_ATTN}, {".ffn", PART_FFN}};

const char *unit_name(char out[UNIT_NAME], struct unit u)
{
    size_t k = sizeof forms / sizeof *forms - 1;
    while (k > 0 && forms[k].parts != u.parts)
        k--;
    snprintf(out, UNIT_NAME, "%lld%s", (long long)u.block, forms[k].suffix);
    return out;
}

/* One unit from the text up to the next comma; returns where it ends, or NULL. */
static const char *parse_one(struct unit *u, const char *text)
{
    char *end;
    u->block = strtoll(text, &end, 10);
    size_t n = strcspn(end, ",");
    for (size_t k = 0; end != text && k < sizeof forms / sizeof *forms; k++)
        if (strlen(forms[k].suffix) == n && !memcmp(end, forms[k].suffix, n)) {
            u->parts = forms[k].parts;
            return end + n;
        }
    return NULL;
}

int units_parse(struct unit **units, int64_t *n, const char *list, struct err *err)
{
    *n = 0;
    if (!(*units = mem_alloc(strlen(list) + 1, sizeof **units, err)))
        return -1;
    for (const char *p = list; p && *p;) {
        p = parse_one(&(*units)[(*n)++], p);
        if (p && (*p == 0 || p[1] != 0)) {
            p += *p == ',';
            continue;
        }
        free(*units);
        *units = NULL;
        return err_set(
            err, "list of blocks to drop \"%s\": numbers with commas between them were expected, as in 10,11.attn,12.ffn", list);
    }
    return 0;
}
