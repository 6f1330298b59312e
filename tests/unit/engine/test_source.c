/* A model file is known again by what it is and where it lies, and for another as soon as anything of it changes. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/gguf.h"
#include "model/model.h"
#include "tiny_gguf.h"
#include "../suite.h"

static struct weight_identity identity_of(const char *path, char name[128])
{
    struct model m;
    struct err e = {0};
    struct weight_identity id = {0};
    ck_assert_msg(!model_open(path, &m, &e), "%s", e.msg);
    m.w.source->identify(m.w.source->arg, &id);
    snprintf(name, 128, "%s", m.w.source->name);
    model_close(&m);
    return id;
}

static int64_t data_at(const char *path, int64_t *size)
{
    struct model m;
    struct err e = {0};
    ck_assert_msg(!model_open(path, &m, &e), "%s", e.msg);
    const uint8_t *first = m.gguf->tensor[0].data;
    for (int64_t i = 0; i < m.gguf->n_tensor; i++)
        first = m.gguf->tensor[i].data < first ? m.gguf->tensor[i].data : first;
    int64_t at = first - m.gguf->base;
    *size = (int64_t)m.gguf->size_bytes;
    model_close(&m);
    return at;
}

/* Changes a byte and leaves the times as they were. */
static void flip(const char *path, int64_t at)
{
    struct stat st;
    uint8_t byte;
    int fd = open(path, O_RDWR);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
    ck_assert_int_eq(futimens(fd, (struct timespec[]){st.st_atim, st.st_mtim}), 0);
    close(fd);
}

static void assert_differs(struct weight_identity a, struct weight_identity b, int size, int time, int head, int sample)
{
    ck_assert_int_eq(a.size_bytes != b.size_bytes, size);
    ck_assert_int_eq(a.modified_ns != b.modified_ns, time);
    ck_assert_int_eq(a.head_hash != b.head_hash, head);
    ck_assert_int_eq(a.sample_hash != b.sample_hash, sample);
}

START_TEST(every_change_is_seen)
{
    char *path = tiny_gguf_write("llama", 256, 7, 0), name[128], again[128];
    struct weight_identity was = identity_of(path, name), now = identity_of(path, again);
    int64_t size, data = data_at(path, &size);
    assert_differs(was, now, 0, 0, 0, 0);
    ck_assert_str_eq(name, again);

    ck_assert_int_eq(utimensat(AT_FDCWD, path, (struct timespec[]){{1, 0}, {1, 0}}, 0), 0);
    now = identity_of(path, again);
    assert_differs(was, now, 0, 1, 0, 0);
    was = now;

    flip(path, data); /* the first and the last weight */
    assert_differs(was, identity_of(path, again), 0, 0, 0, 1);
    flip(path, data);
    flip(path, size - 1);
    assert_differs(was, identity_of(path, again), 0, 0, 0, 1);
    flip(path, size - 1);
    assert_differs(was, identity_of(path, again), 0, 0, 0, 0);

    int fd = open(path, O_WRONLY | O_APPEND);
    ck_assert_int_eq(write(fd, "x", 1), 1);
    futimens(fd, (struct timespec[]){{1, 0}, {1, 0}});
    close(fd);
    assert_differs(was, identity_of(path, again), 1, 0, 0, 1);
    ck_assert_str_eq(name, again);
    unlink(path);
    free(path);
}
END_TEST

START_TEST(another_head_is_seen)
{
    char *a = tiny_gguf_write("llama", 256, 7, 0), *b = tiny_gguf_write("llama", 512, 7, 0), name[128];
    struct weight_identity x = identity_of(a, name), y = identity_of(b, name);
    ck_assert_uint_ne(x.head_hash, y.head_hash);
    ck_assert_uint_eq(x.sample_hash, y.sample_hash);
    unlink(a);
    unlink(b);
    free(a);
    free(b);
}
END_TEST

START_TEST(a_name_says_which_file_and_is_one)
{
    char *path = tiny_gguf_write("llama", 256, 7, 0), dir[] = "/tmp/galley-source-XXXXXX";
    char here[128], there[128], link_name[128], odd[200], link[200], name[128];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(odd, sizeof odd, "%s/a \"b\"\n:c.gguf", dir);
    snprintf(link, sizeof link, "%s/link.gguf", dir);
    identity_of(path, here);
    ck_assert_int_eq(symlink(path, link), 0);
    identity_of(link, link_name);
    ck_assert_str_eq(here, link_name); /* the same file */
    ck_assert_int_eq(rename(path, odd), 0);
    identity_of(odd, there);
    ck_assert_int_eq(strncmp(there, "a__b___c-", 9), 0);
    ck_assert_uint_eq(strlen(there), 9 + 15 + 1);
    for (int i = 0; i < 100; i++)
        name[i] = 'n';
    snprintf(name + 100, sizeof name - 100, ".gguf");
    snprintf(link, sizeof link, "%s/%s", dir, name);
    ck_assert_int_eq(rename(odd, link), 0);
    identity_of(link, there);
    ck_assert_uint_lt(strlen(there), 120); /* longer names are cut */
    unlink(link);
    snprintf(link, sizeof link, "%s/link.gguf", dir);
    unlink(link);
    rmdir(dir);
    free(path);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("source");
    tcase_add_test(tc, every_change_is_seen);
    tcase_add_test(tc, another_head_is_seen);
    tcase_add_test(tc, a_name_says_which_file_and_is_one);
    return suite_run(tc);
}
