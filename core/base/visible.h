/* Text from files on its way to a terminal: control characters, which could move its cursor, retitle it or hide what is printed,
 * become visible, as utf8_form spells them. */
#ifndef ESPALIER_BASE_VISIBLE_H
#define ESPALIER_BASE_VISIBLE_H

#include <stdio.h>

/* A stream that passes on to `under` what it gets, made visible; line ends and tabs stay. fclose leaves `under` open. NULL: no
 * memory. */
FILE *visible_open(FILE *under);

#endif
