#include "prune/partial.h"

#include <string.h>
#include <unistd.h>

#include "core/base/file.h"
#include "core/base/progress.h"

static const char MAGIC[] = "espalier partial scores 1\n";

bool partial_due(const struct partial *p)
{
    return p && p->path && clock_seconds() - p->saved_at >= p->every;
}

/* Whether what has that name was begun by us (1 or 0); somebody else's file is neither replaced nor removed. */
static int ours(const char *path, struct err *err)
{
    char magic[sizeof MAGIC];
    FILE *f = fopen(path, "rb");
    if (!f)
        return err_errno(err, "%s", path);
    int same = fread(magic, 1, sizeof magic, f) == sizeof magic && memcmp(magic, MAGIC, sizeof magic) == 0;
    if (!same && ferror(f))
        same = err_errno(err, "%s", path);
    fclose(f);
    return same;
}

int partial_save(struct partial *p, const struct segment *segments, int n, struct err *err)
{
    struct file_writer w;
    if (!p || !p->path)
        return 0;
    int there = path_status(p->path, err), own = there > 0 ? ours(p->path, err) : there;
    if (own < 0)
        return -1;
    if (there && !own)
        return err_set(err, "%s: is no partial result of this program's; move it away, its name is needed", p->path);
    if (file_writer_open(&w, p->path, err) != 0)
        return -1;
    int rc = file_writer_put(&w, MAGIC, sizeof MAGIC, err) == 0 ? file_writer_put(&w, p->key, sizeof p->key, err) : -1;
    for (int i = 0; i < n && rc == 0; i++)
        rc = file_writer_put(&w, segments[i].data, segments[i].bytes, err);
    if (rc != 0) {
        file_writer_abort(&w);
        return -1;
    }
    p->saved_at = clock_seconds();
    return file_writer_commit(&w, err);
}

int partial_open(FILE **in, const struct partial *p, struct err *err)
{
    char magic[sizeof MAGIC], key[sizeof p->key];
    *in = NULL;
    int there = p && p->path && p->resume ? path_status(p->path, err) : 0;
    if (there <= 0)
        return there;
    FILE *f = fopen(p->path, "rb");
    if (!f)
        return err_errno(err, "%s", p->path);
    if (fread(magic, 1, sizeof magic, f) != sizeof magic || fread(key, 1, sizeof key, f) != sizeof key ||
        memcmp(magic, MAGIC, sizeof magic) != 0 || memcmp(key, p->key, sizeof key) != 0) {
        fclose(f);
        return err_set(
            err, "%s: begun with another model, calibration, options or processor; remove it or leave out --resume to begin anew",
            p->path);
    }
    *in = f;
    return 0;
}

int partial_read(FILE *in, const struct partial *p, const struct segment *segments, int n, struct err *err)
{
    for (int i = 0; i < n; i++)
        if (fread(segments[i].data, 1, segments[i].bytes, in) != segments[i].bytes)
            return err_set(err, "%s: it is damaged; remove it or leave out --resume to begin anew", p->path);
    return 0;
}

void partial_remove(const struct partial *p)
{
    struct err unread = {0}; /* what cannot be told to be ours stays */
    if (p && p->path && ours(p->path, &unread) == 1)
        unlink(p->path);
}
