#include "core/base/nearest.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST = 63 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Optimal string alignment: row i of the table holds the distances of a[i] from each beginning of b. */
static int distance(const char *a, const char *b)
{
    int rows[3][LONGEST + 1], *before = rows[0], *last = rows[1], *row = rows[2];
    int n = (int)strlen(a), m = (int)strlen(b);
    for (int j = 0; j <= m; j++)
        last[j] = j;
    for (int i = 1; i <= n; i++) {
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            row[j] = least(least(last[j], row[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], before[j - 2] + 1);
        }
        int *spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[m];
}

const char *nearest_name(const char *name, const char *const names[], size_t n)
{
    const char *nearest = NULL;
    size_t length = strlen(name);
    int best = length < 3 ? 2 : (int)(length + 2) / 3 + 1; /* more than this says nothing */
    if (length > LONGEST)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        int d = strlen(names[i]) > LONGEST ? best : distance(name, names[i]);
        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}
