/* UTF-8 as Unicode defines it (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef ESPALIER_BASE_UTF8_H
#define ESPALIER_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that s[n] begins with; 0 where it begins with none. */
size_t utf8_char(const char *s, size_t n);

/* Bytes of what becomes one U+FFFD where s[n], n > 0, begins with no character: the longest beginning of a character, or else one
 * byte ("substitution of maximal subparts", Unicode 3.9; what Python, Rust and browsers do). */
size_t utf8_bad(const char *s, size_t n);

/* Whether all of s[n] is UTF-8. */
bool utf8_valid(const char *s, size_t n);

/* Bytes of s[n] without a character at its end that more bytes may complete. */
size_t utf8_whole(const char *s, size_t n);

/* s[n] with U+FFFD for what is no character; malloc'ed, with a NUL behind *n_out bytes. NULL: out of memory. */
char *utf8_repaired(size_t *n_out, const char *s, size_t n);

/* s as a terminal may show it: control characters (C0, DEL, C1) and what is not UTF-8 spelled as \x1b; cut at `size`, NUL
 * included. */
void utf8_visible(char *to, size_t size, const char *s);

#endif
