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

/* Bytes of the byte order mark that s[n] begins with: 3, or 0. */
size_t utf8_mark(const char *s, size_t n);

/* Bytes of s[n] without a character at its end that more bytes may complete. */
size_t utf8_whole(const char *s, size_t n);

/* s[n] with U+FFFD for what is no character; malloc'ed, with a NUL behind *n_out bytes. NULL: out of memory. */
char *utf8_repaired(size_t *n_out, const char *s, size_t n);

/* What a terminal may show of what s[n], n > 0, begins with: the character itself, or \x1b for one byte of a control character
 * (C0 but for those in `kept`, DEL, C1) or of what is not UTF-8. Ends with a NUL. Returns how many bytes of s that is. */
enum { UTF8_FORM = 5 };
size_t utf8_form(char form[UTF8_FORM], const char *s, size_t n, const char *kept);

/* All of s in such forms, cut at `size`, NUL included. */
void utf8_visible(char *to, size_t size, const char *s);

#endif
