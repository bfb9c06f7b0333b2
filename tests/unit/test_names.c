/* What has a writer's names when it is done: only what it made itself is renamed or removed, and the folder goes to the disk. */
#include "core/base/dir.h"
#include "tests/tiny_model.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/base/file.h"

static int folders_synced, folder_error;

/* In place of the library's. */
int fsync(int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        folders_synced++;
        errno = folder_error;
        return folder_error ? -1 : 0;
    }
    return (int)syscall(SYS_fsync, fd);
}

static void holds(const char *path, const char *text)
{
    struct buf b = read_bytes(path);
    assert_string_equal(b.p, text);
    buf_free(&b);
}

static void a_rename_lasts(void **state)
{
    (void)state;
    struct err bad = {0};
    struct dir_writer w;
    folders_synced = 0;
    OK(file_write(in_scratch("lasting"), "x", 1, &err));
    assert_int_equal(folders_synced, 1);
    OK(dir_writer_open(&w, in_scratch("lasting_folder"), false, &err));
    OK(dir_writer_commit(&w, &err));
    assert_int_equal(folders_synced, 2);
    folder_error = EINVAL; /* a file system that does not know it */
    OK(file_write(in_scratch("lasting"), "y", 1, &err));
    folder_error = EIO;
    expect_error(file_write(in_scratch("lasting"), "z", 1, &bad), &bad, "lasting");
    folder_error = 0;
}

static void foreign_temporary_file(void **state)
{
    (void)state;
    struct err taken = {0};
    struct file_writer w;
    char tmp[900];
    for (int commit = 0; commit < 2; commit++) {
        OK(file_writer_open(&w, in_scratch("file"), &err));
        snprintf(tmp, sizeof tmp, "%s", w.tmp);
        unlink(tmp);
        write_text(tmp, "theirs");
        if (commit)
            expect_error(file_writer_commit(&w, &taken), &taken, "file");
        else
            file_writer_abort(&w);
        holds(tmp, "theirs");
        assert_int_equal(access(in_scratch("file"), F_OK), -1);
        unlink(tmp);
    }
}

/* The folder under the name is another one at the commit than at the start; or was empty then, and is not now. */
static void foreign_folder(void **state)
{
    (void)state;
    struct dir_writer w;
    char out[600], file[700], aside[700], tmp[900];
    for (int filled = 0; filled < 2; filled++) {
        struct err taken = {0};
        snprintf(out, sizeof out, "%s/out", scratch_dir(filled ? "foreign2" : "foreign"));
        snprintf(file, sizeof file, "%s/file", out);
        snprintf(aside, sizeof aside, "%s.aside", out);
        OK(dir_make(out, &err));
        OK(dir_writer_open(&w, out, !filled, &err));
        snprintf(tmp, sizeof tmp, "%s", w.tmp);
        if (!filled) {
            assert_int_equal(rename(out, aside), 0);
            OK(dir_make(out, &err));
        }
        write_text(file, "theirs");
        expect_error(dir_writer_commit(&w, &taken), &taken, out);
        holds(file, "theirs");
        assert_int_equal(access(tmp, F_OK), -1);
    }
}

static void removal_through_a_link(void **state)
{
    (void)state;
    char inner[700], link[700], file[800];
    snprintf(inner, sizeof inner, "%s/checkpoint-1", scratch_dir("theirs"));
    snprintf(file, sizeof file, "%s/a", inner);
    snprintf(link, sizeof link, "%s", in_scratch("linked"));
    OK(dir_make(inner, &err));
    write_text(file, "theirs");
    assert_int_equal(symlink("theirs", link), 0);
    dir_remove_files(link, "checkpoint-1", (const char *const[]){"a"}, 1);
    holds(file, "theirs");
    dir_remove_files(in_scratch("theirs"), "checkpoint-1", (const char *const[]){"a"}, 1);
    assert_int_equal(access(inner, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rename_lasts),
        cmocka_unit_test(foreign_temporary_file),
        cmocka_unit_test(foreign_folder),
        cmocka_unit_test(removal_through_a_link),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
