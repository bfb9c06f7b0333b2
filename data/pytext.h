/* The str methods of Python that published prompts are made with, on UTF-8. */
#ifndef ESPALIER_DATA_PYTEXT_H
#define ESPALIER_DATA_PYTEXT_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/mem.h"

/* len(s): code points. */
int64_t pytext_len(const char *s);

/* The length in bytes of s[n].rstrip(), and s.strip() in place: all that Python holds to be white space. */
size_t pytext_rstrip(const char *s, size_t n);
void pytext_strip(char *s);

/* s.replace(from, to) in place, for a `to` that is no longer than `from`. */
void pytext_replace(char *s, const char *from, const char *to);

/* re.sub(r"\[.*?\]", "", s) in place. */
void pytext_remove_brackets(char *s);

/* s.capitalize(), owned by the arena: the first character in title case, the rest in lower case. */
char *pytext_capitalize(const char *s, struct arena *arena, struct err *err);

#endif
