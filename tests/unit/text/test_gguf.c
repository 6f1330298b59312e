/* engine/model/gguf*.c: what is written comes back; every malformed file is refused, with a reason. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dtype.h"
#include "mem.h"
#include "model/gguf.h"
#include "model/gguf_write.h"
#include "../suite.h"

/* ---- files made byte by byte ---- */

struct bytes {
    uint8_t p[4096];
    size_t n;
};

static void put(struct bytes *b, const void *p, size_t n)
{
    ck_assert_uint_le(b->n + n, sizeof b->p);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put32(struct bytes *b, uint32_t v)
{
    put(b, &v, 4);
}

static void put64(struct bytes *b, uint64_t v)
{
    put(b, &v, 8);
}

static void puts_(struct bytes *b, const char *s)
{
    put64(b, strlen(s));
    put(b, s, strlen(s));
}

static void head(struct bytes *b, uint32_t version, uint64_t n_tensor, uint64_t n_kv)
{
    b->n = 0;
    put(b, "GGUF", 4);
    put32(b, version);
    put64(b, n_tensor);
    put64(b, n_kv);
}

static void kv_u32(struct bytes *b, const char *key, uint32_t v)
{
    puts_(b, key);
    put32(b, GGUF_U32);
    put32(b, v);
}

static void tensor(struct bytes *b, const char *name, uint64_t d0, uint64_t d1, uint32_t type, uint64_t offset)
{
    puts_(b, name);
    put32(b, 2);
    put64(b, d0);
    put64(b, d1);
    put32(b, type);
    put64(b, offset);
}

static void pad(struct bytes *b, size_t extra)
{
    static const uint8_t zero[1024];
    put(b, zero, (32 - b->n % 32) % 32 + extra);
}

/* Opens a copy of exactly that size, so that a read beyond the end meets the sanitizer's fence. */
static int open_bytes(const struct bytes *b, size_t n, struct gguf **g, void **copy, struct err *e)
{
    *copy = malloc(n ? n : 1);
    memcpy(*copy, b->p, n);
    memset(e, 0, sizeof *e);
    return gguf_open_mem(g, *copy, n, "test", e);
}

static void refuse(const struct bytes *b, const char *reason)
{
    struct gguf *g;
    struct err e;
    void *copy;
    int rc = open_bytes(b, b->n, &g, &copy, &e);
    ck_assert_msg(rc == -ERR_FORMAT, "accepted, want: %s", reason);
    ck_assert_ptr_null(g);
    ck_assert_msg(strstr(e.msg, reason) != NULL, "'%s' lacks '%s'", e.msg, reason);
    free(copy);
}

static void sample(struct bytes *b)
{
    head(b, 3, 2, 5);
    kv_u32(b, "a.u32", 7);
    puts_(b, "a.str");
    put32(b, GGUF_STR);
    puts_(b, "hello");
    puts_(b, "a.strs");
    put32(b, GGUF_ARR);
    put32(b, GGUF_STR);
    put64(b, 3);
    puts_(b, "x");
    puts_(b, "");
    puts_(b, "zz");
    puts_(b, "a.f32s");
    put32(b, GGUF_ARR);
    put32(b, GGUF_F32);
    put64(b, 2);
    put(b, (float[]){1.5f, -2}, 8);
    puts_(b, "a.bool");
    put32(b, GGUF_BOOL);
    put(b, "\1", 1);
    tensor(b, "w", 8, 2, DT_F32, 0);
    tensor(b, "v", 32, 1, 6 /* Q5_0: Galley has no code for it */, 64);
    pad(b, 64 + 22);
}

START_TEST(test_reads_everything)
{
    struct bytes b;
    struct gguf *g;
    struct err e;
    void *copy;
    sample(&b);
    ck_assert_int_eq(open_bytes(&b, b.n, &g, &copy, &e), 0);
    uint32_t u;
    uint64_t n;
    float f[2];
    bool flag;
    struct slice s[3];
    ck_assert_int_eq(gguf_get_u32(g, "a.u32", &u, &e), 0);
    ck_assert_uint_eq(u, 7);
    ck_assert_int_eq(gguf_get_str(g, "a.str", s, &e), 0);
    ck_assert(slice_eq(s[0], "hello") && !slice_eq(s[0], "hell"));
    ck_assert_int_eq(gguf_arr_len(g, "a.strs", &n, &e), 0);
    ck_assert_uint_eq(n, 3);
    ck_assert_int_eq(gguf_get_strs(g, "a.strs", s, 3, &e), 0);
    ck_assert(slice_eq(s[0], "x") && slice_eq(s[1], "") && slice_eq(s[2], "zz"));
    ck_assert_int_eq(gguf_get_f32s(g, "a.f32s", f, 2, &e), 0);
    ck_assert(f[0] == 1.5f && f[1] == -2);
    ck_assert_int_eq(gguf_get_bool(g, "a.bool", &flag, &e), 0);
    ck_assert(flag);

    const struct gguf_tensor *t = gguf_tensor_find(g, "v");
    ck_assert_ptr_nonnull(t);
    ck_assert(t->type == 6 && t->n_dim == 2 && t->dim[0] == 32 && t->dim[1] == 1 && t->dim[3] == 1 &&
              t->size_bytes == 22);
    ck_assert_ptr_eq(t->data, gguf_tensor_find(g, "w")->data + 64);
    ck_assert_ptr_eq(t->data + 22, (uint8_t *)copy + b.n);
    ck_assert_ptr_null(gguf_tensor_find(g, "vv"));
    ck_assert_ptr_null(gguf_tensor_find(g, ""));
    gguf_close(g);
    free(copy);
}
END_TEST

START_TEST(test_getters_check_types)
{
    struct bytes b;
    struct gguf *g;
    struct err e;
    void *copy;
    sample(&b);
    ck_assert_int_eq(open_bytes(&b, b.n, &g, &copy, &e), 0);
    uint32_t u;
    float f;
    bool flag;
    struct slice s[3];
    int32_t i[3];
    ck_assert_int_eq(gguf_get_u32(g, "nope", &u, &e), -ERR_NOTFOUND);
    ck_assert_ptr_nonnull(strstr(e.msg, "nope"));
    ck_assert_int_eq(gguf_get_u32(g, "a.str", &u, &e), -ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(e.msg, "a.str"));
    ck_assert_int_eq(gguf_get_u32(g, "a.bool", &u, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_u32(g, "a.strs", &u, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_f32(g, "a.u32", &f, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_bool(g, "a.u32", &flag, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_str(g, "a.u32", s, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_strs(g, "a.str", s, 1, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_strs(g, "a.strs", s, 2, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_strs(g, "a.f32s", s, 2, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_i32s(g, "a.f32s", i, 2, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_i32s(g, "a.strs", i, 3, &e), -ERR_FORMAT);
    gguf_close(g);
    free(copy);
}
END_TEST

START_TEST(test_integers_of_any_width)
{
    struct bytes b;
    struct gguf *g;
    struct err e;
    void *copy;
    uint32_t u;
    uint64_t u64;
    int32_t i[2];
    head(&b, 2, 0, 4);
    puts_(&b, "big");
    put32(&b, GGUF_U64);
    put64(&b, 1ull << 40);
    puts_(&b, "neg");
    put32(&b, GGUF_I16);
    put(&b, (int16_t[]){-3}, 2);
    puts_(&b, "small");
    put32(&b, GGUF_ARR);
    put32(&b, GGUF_I8);
    put64(&b, 2);
    put(&b, (int8_t[]){-5, 6}, 2);
    puts_(&b, "wide");
    put32(&b, GGUF_ARR);
    put32(&b, GGUF_I64);
    put64(&b, 1);
    put(&b, (int64_t[]){-(1ll << 40)}, 8);
    ck_assert_int_eq(open_bytes(&b, b.n, &g, &copy, &e), 0);
    ck_assert_int_eq(gguf_get_u32(g, "big", &u, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_u64(g, "big", &u64, &e), 0);
    ck_assert_uint_eq(u64, 1ull << 40);
    ck_assert_int_eq(gguf_get_u32(g, "neg", &u, &e), -ERR_FORMAT);
    ck_assert_int_eq(gguf_get_i32s(g, "small", i, 2, &e), 0);
    ck_assert(i[0] == -5 && i[1] == 6);
    ck_assert_int_eq(gguf_get_i32s(g, "wide", i, 1, &e), -ERR_FORMAT);
    gguf_close(g);
    free(copy);
}
END_TEST

START_TEST(test_every_truncation_is_refused)
{
    struct bytes b;
    sample(&b);
    for (size_t n = 0; n < b.n; n++) {
        struct gguf *g;
        struct err e;
        void *copy;
        ck_assert_msg(open_bytes(&b, n, &g, &copy, &e) == -ERR_FORMAT, "accepted the first %zu bytes", n);
        ck_assert(e.msg[0]);
        free(copy);
    }
}
END_TEST

/* No byte may crash the reader, whatever its value; offsets found on the way stay inside. */
START_TEST(test_every_flipped_byte)
{
    struct bytes b;
    sample(&b);
    for (size_t i = 0; i < b.n; i++)
        for (int v = 1; v < 256; v = v * 2 + 1) {
            struct gguf *g;
            struct err e;
            void *copy;
            b.p[i] ^= (uint8_t)v;
            if (!open_bytes(&b, b.n, &g, &copy, &e))
                for (int64_t t = 0; t < g->n_tensor; t++)
                    ck_assert(g->tensor[t].data + g->tensor[t].size_bytes <= (uint8_t *)copy + b.n);
            gguf_close(g);
            free(copy);
            b.p[i] ^= (uint8_t)v;
        }
}
END_TEST

START_TEST(test_refuses_bad_heads)
{
    struct bytes b;
    head(&b, 3, 0, 0);
    b.p[0] = 'X';
    refuse(&b, "not a GGUF file");
    head(&b, 1, 0, 0);
    refuse(&b, "version 1");
    head(&b, 0x03000000, 0, 0);
    refuse(&b, "big-endian");
    head(&b, 3, 0, UINT64_MAX);
    refuse(&b, "do not fit");
    head(&b, 3, UINT64_MAX / 2, 0);
    refuse(&b, "do not fit");
}
END_TEST

START_TEST(test_refuses_bad_keys)
{
    struct bytes b;
    head(&b, 3, 0, 2);
    kv_u32(&b, "twice", 1);
    kv_u32(&b, "twice", 2);
    refuse(&b, "'twice': it occurs twice");
    head(&b, 3, 0, 1);
    kv_u32(&b, "bad\xff", 1);
    refuse(&b, "not valid UTF-8");
    head(&b, 3, 0, 1);
    kv_u32(&b, "bad\n", 1);
    refuse(&b, "control character");
    head(&b, 3, 0, 1);
    put64(&b, 3);
    put(&b, "a\0b", 3);
    put64(&b, 0);
    refuse(&b, "control character");
    head(&b, 3, 0, 1);
    put64(&b, UINT64_MAX - 3);
    pad(&b, 32);
    refuse(&b, "longer than the rest");
    head(&b, 3, 0, 1);
    put64(&b, 0);
    pad(&b, 32);
    refuse(&b, "has 0 bytes");
}
END_TEST

START_TEST(test_refuses_bad_values)
{
    struct bytes b;
    head(&b, 3, 0, 1);
    puts_(&b, "k");
    put32(&b, 13);
    pad(&b, 32);
    refuse(&b, "'k': unknown type of value");
    head(&b, 3, 0, 1);
    puts_(&b, "k");
    put32(&b, GGUF_ARR);
    put32(&b, GGUF_ARR);
    put64(&b, 1);
    pad(&b, 32);
    refuse(&b, "'k': arrays of arrays");
    head(&b, 3, 0, 1);
    puts_(&b, "k");
    put32(&b, GGUF_ARR);
    put32(&b, GGUF_U64);
    put64(&b, (1ull << 61) + 1); /* times 8 wraps to 8 */
    pad(&b, 32);
    refuse(&b, "'k': the value is longer");
    head(&b, 3, 0, 1);
    puts_(&b, "k");
    put32(&b, GGUF_ARR);
    put32(&b, GGUF_STR);
    put64(&b, 1ull << 60);
    pad(&b, 32);
    refuse(&b, "'k': more strings");
    head(&b, 3, 0, 1);
    puts_(&b, "k");
    put32(&b, GGUF_BOOL);
    put(&b, "\2", 1);
    refuse(&b, "'k': a boolean");
    static const uint32_t alignments[] = {0, 4, 48, 1u << 31};
    for (int i = 0; i < 4; i++) {
        head(&b, 3, 0, 1);
        kv_u32(&b, "general.alignment", alignments[i]);
        refuse(&b, "general.alignment");
    }
}
END_TEST

START_TEST(test_refuses_bad_tensors)
{
    static const struct {
        uint64_t d0, d1;
        uint32_t type;
        uint64_t offset;
        const char *reason;
    } bad[] = {
        {8, 1, 4, 0, "'t': unknown type 4"},
        {8, 1, 4000000000u, 0, "'t': unknown type"},
        {0, 1, 0, 0, "dimension is zero"},
        {1ull << 63, 1, 0, 0, "overflows"},
        {1ull << 32, 1ull << 32, 0, 0, "overflows"},
        {1ull << 31, 1ull << 31, 0, 0, "overflows"},
        {33, 1, DT_Q8_0, 0, "whole number of blocks"},
        {8, 1, 0, 4, "multiple of the alignment"},
        {8, 1, 0, 64, "beyond the end"},
        {17, 1, 0, 0, "beyond the end"},
        {8, 1, 0, UINT64_MAX - 31, "beyond the end"},
    };
    struct bytes b;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        head(&b, 3, 1, 0);
        tensor(&b, "t", bad[i].d0, bad[i].d1, bad[i].type, bad[i].offset);
        pad(&b, 64);
        refuse(&b, bad[i].reason);
    }
    head(&b, 3, 2, 0);
    tensor(&b, "t", 8, 1, 0, 0);
    tensor(&b, "t", 8, 1, 0, 32);
    pad(&b, 64);
    refuse(&b, "'t': it occurs twice");
    head(&b, 3, 2, 0);
    tensor(&b, "t", 16, 1, 0, 0);
    tensor(&b, "u", 8, 1, 0, 32);
    pad(&b, 64);
    refuse(&b, "overlaps");
    head(&b, 3, 1, 0);
    puts_(&b, "t");
    put32(&b, 5);
    pad(&b, 128);
    refuse(&b, "1 to 4 dimensions");
}
END_TEST

/* ---- writing ---- */

static void temp_path(char *path, size_t n)
{
    const char *dir = getenv("TMPDIR");
    snprintf(path, n, "%s/galley-test-gguf-%d", dir ? dir : "/tmp", (int)getpid());
}

START_TEST(test_write_then_read)
{
    char path[256];
    struct gguf_writer *w;
    struct gguf *g;
    struct err e;
    temp_path(path, sizeof path);
    ck_assert_int_eq(gguf_writer_open(&w, path, 64, &e), 0);
    gguf_put_u32(w, "n", 5);
    gguf_put_f32(w, "f", 0.25f);
    gguf_put_bool(w, "b", true);
    gguf_put_str(w, "s", "text");
    gguf_put_strs(w, "ss", (struct slice[]){{"a", 1}, {"bc", 2}}, 2);
    gguf_put_i32s(w, "is", (int32_t[]){-1, 2}, 2);
    gguf_put_f32s(w, "fs", NULL, 0);
    ck_assert_int_eq(gguf_put_tensor(w, (struct slice){"t0", 2}, 2, (int64_t[]){3, 2}, DT_F32, &e), 0);
    ck_assert_int_eq(gguf_put_tensor(w, (struct slice){"t1", 2}, 1, (int64_t[]){5}, DT_F16, &e), 0);
    ck_assert_int_eq(gguf_put_tensor(w, (struct slice){"t2", 2}, 1, (int64_t[]){5}, DT_Q8_0, &e), -ERR_INVALID);
    ck_assert_int_eq(gguf_write_head(w, &e), 0);
    uint8_t data[34];
    for (int i = 0; i < 34; i++)
        data[i] = (uint8_t)i;
    ck_assert_int_eq(gguf_write_data(w, data, 7, &e), 0); /* pieces need not match tensors */
    ck_assert_int_eq(gguf_writer_finish(w, &e), -ERR_INVALID);
    ck_assert_int_eq(access(path, F_OK), -1);
    ck_assert_int_eq(gguf_write_data(w, data + 7, 27, &e), 0);
    ck_assert_int_eq(gguf_write_data(w, data, 1, &e), -ERR_INVALID);
    ck_assert_int_eq(gguf_writer_finish(w, &e), 0);
    gguf_writer_close(w);

    ck_assert_msg(gguf_open(&g, path, &e) == 0, "%s", e.msg);
    unlink(path);
    ck_assert_uint_eq(g->alignment, 64);
    ck_assert_int_eq(g->n_kv, 8);
    int32_t is[2];
    struct slice ss[2];
    float f;
    ck_assert_int_eq(gguf_get_i32s(g, "is", is, 2, &e), 0);
    ck_assert(is[0] == -1 && is[1] == 2);
    ck_assert_int_eq(gguf_get_strs(g, "ss", ss, 2, &e), 0);
    ck_assert(slice_eq(ss[1], "bc"));
    ck_assert_int_eq(gguf_get_f32(g, "f", &f, &e), 0);
    ck_assert(f == 0.25f);
    ck_assert_mem_eq(gguf_tensor_find(g, "t0")->data, data, 24);
    ck_assert_mem_eq(gguf_tensor_find(g, "t1")->data, data + 24, 10);
    gguf_close(g);
}
END_TEST

START_TEST(test_unfinished_leaves_nothing)
{
    char path[256], tmp[300];
    struct gguf_writer *w;
    struct err e;
    temp_path(path, sizeof path);
    snprintf(tmp, sizeof tmp, "%s.%d.tmp", path, (int)getpid());
    ck_assert_int_eq(gguf_writer_open(&w, path, 0, &e), 0);
    ck_assert_int_eq(access(tmp, F_OK), 0);
    gguf_writer_close(w);
    ck_assert_int_eq(access(tmp, F_OK), -1);
    ck_assert_int_eq(access(path, F_OK), -1);
    ck_assert_int_eq(gguf_writer_open(&w, "/nonexistent/x", 0, &e), -ERR_IO);
    struct gguf *g;
    ck_assert_int_eq(gguf_open(&g, "/nonexistent/x", &e), -ERR_NOTFOUND);
    ck_assert_int_eq(gguf_open(&g, "/", &e), -ERR_FORMAT);
}
END_TEST

START_TEST(test_out_of_memory_is_an_error)
{
    struct bytes b;
    sample(&b);
    for (int nth = 1; nth <= 5; nth++) {
        struct gguf *g;
        struct err e;
        mem_fail_nth(nth);
        ck_assert_int_eq(gguf_open_mem(&g, b.p, b.n, "test", &e), -ERR_NOMEM);
        mem_fail_nth(0);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("gguf");
    tcase_add_test(tc, test_reads_everything);
    tcase_add_test(tc, test_getters_check_types);
    tcase_add_test(tc, test_integers_of_any_width);
    tcase_add_test(tc, test_every_truncation_is_refused);
    tcase_add_test(tc, test_every_flipped_byte);
    tcase_add_test(tc, test_refuses_bad_heads);
    tcase_add_test(tc, test_refuses_bad_keys);
    tcase_add_test(tc, test_refuses_bad_values);
    tcase_add_test(tc, test_refuses_bad_tensors);
    tcase_add_test(tc, test_write_then_read);
    tcase_add_test(tc, test_unfinished_leaves_nothing);
    tcase_add_test(tc, test_out_of_memory_is_an_error);
    return suite_run(tc);
}
