#include "gguf.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "text/utf8.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are read from the map as they are");

enum { MIN_KV_BYTES = 8 + 1 + 4 + 1, MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, MAX_ALIGNMENT = 1 << 20 };

/* ---- types ---- */

/* Bytes of a value of fixed size; 0 for strings and arrays. */
static const uint8_t value_bytes[GGUF_N_TYPE] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,  [GGUF_U16] = 2,  [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_U64] = 8, [GGUF_BOOL] = 1, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

/* All of ggml's tensor types, so that a file's extent can be checked even where Galley cannot compute with it. */
static const struct {
    uint16_t block_len, block_bytes;
} tensor_type[] = {
    [0] = {1, 4},      [1] = {1, 2},      [2] = {32, 18},   [3] = {32, 20},    [6] = {32, 22},    [7] = {32, 24},
    [8] = {32, 34},    [9] = {32, 36},    [10] = {256, 84}, [11] = {256, 110}, [12] = {256, 144}, [13] = {256, 176},
    [14] = {256, 210}, [15] = {256, 292}, [16] = {256, 66}, [17] = {256, 74},  [18] = {256, 98},  [19] = {256, 50},
    [20] = {32, 18},   [21] = {256, 110}, [22] = {256, 82}, [23] = {256, 136}, [24] = {1, 1},     [25] = {1, 2},
    [26] = {1, 4},     [27] = {1, 8},     [28] = {1, 8},    [29] = {256, 56},  [30] = {1, 2},     [34] = {256, 54},
    [35] = {256, 66},  [39] = {32, 17},   [40] = {64, 36},  [41] = {128, 18},
};

bool gguf_type_size(int type, int *block_len, int *block_bytes)
{
    if (type < 0 || type >= (int)(sizeof tensor_type / sizeof tensor_type[0]) || !tensor_type[type].block_len)
        return false;
    *block_len = tensor_type[type].block_len;
    *block_bytes = tensor_type[type].block_bytes;
    return true;
}

/* ---- cursor ---- */

struct cursor {
    const uint8_t *base;
    size_t size, at;
    const char *file;
    struct err *e;
};

static size_t left(const struct cursor *c)
{
    return c->size - c->at;
}

static int truncated(const struct cursor *c, const char *what)
{
    return err_set(c->e, ERR_FORMAT, "%s: truncated at byte %zu, in %s", c->file, c->at, what);
}

static int take_u32(struct cursor *c, uint32_t *v, const char *what)
{
    if (left(c) < 4)
        return truncated(c, what);
    memcpy(v, c->base + c->at, 4);
    c->at += 4;
    return 0;
}

static int take_u64(struct cursor *c, uint64_t *v, const char *what)
{
    if (left(c) < 8)
        return truncated(c, what);
    memcpy(v, c->base + c->at, 8);
    c->at += 8;
    return 0;
}

static int take_str(struct cursor *c, struct slice *s, const char *what)
{
    uint64_t len = 0;
    size_t start = c->at;
    int rc = take_u64(c, &len, what);
    if (rc)
        return rc;
    if (len > left(c))
        return err_set(c->e, ERR_FORMAT,
                       "%s: byte %zu: a string of %llu bytes, in %s, is longer than the rest of the file", c->file,
                       start, (unsigned long long)len, what);
    *s = (struct slice){(const char *)c->base + c->at, (size_t)len};
    c->at += (size_t)len;
    return 0;
}

/* Keys and tensor names end up in messages and in C strings. */
static int take_name(struct cursor *c, struct slice *s, const char *what)
{
    size_t start = c->at;
    int rc = take_str(c, s, what);
    if (rc)
        return rc;
    if (s->len == 0 || s->len > GGUF_MAX_NAME)
        return err_set(c->e, ERR_FORMAT, "%s: byte %zu: %s has %zu bytes; 1 to %d are allowed", c->file, start, what,
                       s->len, GGUF_MAX_NAME);
    if (!utf8_valid(s->p, s->len))
        return err_set(c->e, ERR_FORMAT, "%s: byte %zu: %s is not valid UTF-8", c->file, start, what);
    for (size_t i = 0; i < s->len; i++)
        if ((uint8_t)s->p[i] < 0x20 || s->p[i] == 0x7f)
            return err_set(c->e, ERR_FORMAT, "%s: byte %zu: %s has a control character", c->file, start, what);
    return 0;
}

/* ---- key-value pairs ---- */

static int kv_fail(const struct cursor *c, const struct gguf_kv *kv, const char *what)
{
    return err_set(c->e, ERR_FORMAT, "%s: key '%.*s': %s (byte %zu)", c->file, (int)kv->key.len, kv->key.p, what,
                   c->at);
}

/* Steps over n values of kv->elem_type and notes where they are. */
static int kv_take_values(struct cursor *c, struct gguf_kv *kv)
{
    kv->val = c->base + c->at;
    size_t start = c->at, each = value_bytes[kv->elem_type];
    if (each) {
        if (kv->n > left(c) / each)
            return kv_fail(c, kv, "the value is longer than the rest of the file");
        c->at += (size_t)kv->n * each;
    } else {
        if (kv->n > left(c) / 8)
            return kv_fail(c, kv, "more strings than the rest of the file can hold");
        for (uint64_t i = 0; i < kv->n; i++) {
            struct slice s;
            if (take_str(c, &s, "a value"))
                return kv_fail(c, kv, "a string is longer than the rest of the file");
        }
    }
    kv->val_bytes = c->at - start;
    if (kv->elem_type == GGUF_BOOL)
        for (uint64_t i = 0; i < kv->n; i++)
            if (kv->val[i] > 1)
                return kv_fail(c, kv, "a boolean that is neither 0 nor 1");
    return 0;
}

static int kv_take(struct cursor *c, struct gguf_kv *kv)
{
    uint32_t type = 0;
    int rc = take_name(c, &kv->key, "a key");
    if (!rc)
        rc = take_u32(c, &type, "a value's type");
    if (rc)
        return rc;
    if (type >= GGUF_N_TYPE)
        return kv_fail(c, kv, "unknown type of value");
    kv->type = kv->elem_type = (int)type;
    kv->n = 1;
    if (type == GGUF_ARR) {
        rc = take_u32(c, &type, "an array's element type");
        if (!rc)
            rc = take_u64(c, &kv->n, "an array's length");
        if (rc)
            return rc;
        if (type >= GGUF_N_TYPE)
            return kv_fail(c, kv, "unknown type of array element");
        if (type == GGUF_ARR)
            return kv_fail(c, kv, "arrays of arrays are not supported");
        kv->elem_type = (int)type;
    }
    return kv_take_values(c, kv);
}

/* ---- tensors ---- */

static int tensor_fail(const struct cursor *c, const struct gguf_tensor *t, const char *what)
{
    return err_set(c->e, ERR_FORMAT, "%s: tensor '%.*s': %s", c->file, (int)t->name.len, t->name.p, what);
}

static int tensor_take_dims(struct cursor *c, struct gguf_tensor *t)
{
    uint32_t n_dim = 0;
    int rc = take_u32(c, &n_dim, "a tensor's number of dimensions");
    if (rc)
        return rc;
    if (n_dim < 1 || n_dim > GGUF_MAX_DIM)
        return tensor_fail(c, t, "it must have 1 to 4 dimensions");
    t->n_dim = (int)n_dim;
    int64_t n_elem = 1;
    t->n_row = 1;
    for (int i = 0; i < GGUF_MAX_DIM; i++) {
        uint64_t d = 1;
        if (i < t->n_dim && (rc = take_u64(c, &d, "a tensor's dimensions")))
            return rc;
        if (d == 0 || d > INT64_MAX || __builtin_mul_overflow(n_elem, (int64_t)d, &n_elem))
            return tensor_fail(c, t, "a dimension is zero, or their product overflows");
        t->dim[i] = (int64_t)d;
        if (i > 0)
            t->n_row *= (int64_t)d;
    }
    return 0;
}

static int tensor_take(struct cursor *c, struct gguf_tensor *t)
{
    uint32_t type = 0;
    int block_len, block_bytes;
    int rc = take_name(c, &t->name, "a tensor's name");
    if (!rc)
        rc = tensor_take_dims(c, t);
    if (!rc)
        rc = take_u32(c, &type, "a tensor's type");
    if (!rc)
        rc = take_u64(c, &t->offset, "a tensor's offset");
    if (rc)
        return rc;
    if (type > INT32_MAX || !gguf_type_size((int)type, &block_len, &block_bytes))
        return err_set(c->e, ERR_FORMAT, "%s: tensor '%.*s': unknown type %u", c->file, (int)t->name.len, t->name.p,
                       type);
    t->type = (int)type;
    if (t->dim[0] % block_len)
        return tensor_fail(c, t, "its rows are not a whole number of blocks");
    size_t n_block = (size_t)(t->dim[0] / block_len) * (size_t)t->n_row; /* at most the element count: no overflow */
    if (__builtin_mul_overflow(n_block, (size_t)block_bytes, &t->size_bytes))
        return tensor_fail(c, t, "its size overflows");
    return 0;
}

static int tensor_locate(const struct cursor *c, struct gguf_tensor *t, uint32_t alignment)
{
    size_t data_start = (c->at + alignment - 1) / alignment * alignment;
    if (t->offset % alignment)
        return tensor_fail(c, t, "its offset is not a multiple of the alignment");
    if (data_start > c->size || t->offset > c->size - data_start || t->size_bytes > c->size - data_start - t->offset)
        return err_set(c->e, ERR_FORMAT, "%s: tensor '%.*s': %zu bytes at offset %llu reach beyond the end of the file",
                       c->file, (int)t->name.len, t->name.p, t->size_bytes, (unsigned long long)t->offset);
    t->data = c->base + data_start + t->offset;
    return 0;
}

/* ---- order: by key, by name, by offset ---- */

static int str_cmp(struct slice a, struct slice b)
{
    int d = memcmp(a.p, b.p, a.len < b.len ? a.len : b.len);
    return d ? d : (a.len > b.len) - (a.len < b.len);
}

static int kv_cmp(const void *a, const void *b)
{
    return str_cmp((*(const struct gguf_kv *const *)a)->key, (*(const struct gguf_kv *const *)b)->key);
}

static int tensor_name_cmp(const void *a, const void *b)
{
    return str_cmp((*(const struct gguf_tensor *const *)a)->name, (*(const struct gguf_tensor *const *)b)->name);
}

static int tensor_offset_cmp(const void *a, const void *b)
{
    const struct gguf_tensor *x = *(const struct gguf_tensor *const *)a, *y = *(const struct gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int index_keys(struct gguf *g, const struct cursor *c)
{
    for (int64_t i = 0; i < g->n_kv; i++)
        g->kv_by_key[i] = &g->kv[i];
    qsort(g->kv_by_key, (size_t)g->n_kv, sizeof *g->kv_by_key, kv_cmp);
    for (int64_t i = 1; i < g->n_kv; i++)
        if (!kv_cmp(&g->kv_by_key[i - 1], &g->kv_by_key[i]))
            return kv_fail(c, g->kv_by_key[i], "it occurs twice");
    return 0;
}

static int index_tensors(struct gguf *g, const struct cursor *c)
{
    const struct gguf_tensor **t = g->tensor_by_name;
    for (int64_t i = 0; i < g->n_tensor; i++)
        t[i] = &g->tensor[i];
    qsort(t, (size_t)g->n_tensor, sizeof *t, tensor_offset_cmp);
    for (int64_t i = 1; i < g->n_tensor; i++)
        if (t[i]->offset < t[i - 1]->offset + t[i - 1]->size_bytes)
            return tensor_fail(c, t[i], "it overlaps another tensor");
    qsort(t, (size_t)g->n_tensor, sizeof *t, tensor_name_cmp);
    for (int64_t i = 1; i < g->n_tensor; i++)
        if (!tensor_name_cmp(&t[i - 1], &t[i]))
            return tensor_fail(c, t[i], "it occurs twice");
    return 0;
}

/* ---- the file ---- */

static int take_head(struct gguf *g, struct cursor *c)
{
    uint64_t n_tensor = 0, n_kv = 0;
    if (c->size < 4 || memcmp(c->base, "GGUF", 4))
        return err_set(c->e, ERR_FORMAT, "%s: not a GGUF file", c->file);
    c->at = 4;
    int rc = take_u32(c, &g->version, "the header");
    if (!rc && (g->version & 0xffff) == 0)
        return err_set(c->e, ERR_FORMAT, "%s: a big-endian GGUF file", c->file);
    if (!rc && g->version != 2 && g->version != 3)
        return err_set(c->e, ERR_FORMAT, "%s: GGUF version %u; 2 and 3 are supported", c->file, g->version);
    if (!rc)
        rc = take_u64(c, &n_tensor, "the header");
    if (!rc)
        rc = take_u64(c, &n_kv, "the header");
    if (rc)
        return rc;
    /* Before anything is allocated for them: the file must be able to hold what it announces. */
    if (n_kv > left(c) / MIN_KV_BYTES || n_tensor > left(c) / MIN_TENSOR_BYTES)
        return err_set(c->e, ERR_FORMAT, "%s: %llu keys and %llu tensors do not fit into %zu bytes", c->file,
                       (unsigned long long)n_kv, (unsigned long long)n_tensor, c->size);
    g->n_kv = (int64_t)n_kv;
    g->n_tensor = (int64_t)n_tensor;
    g->kv = mem_calloc(n_kv, sizeof *g->kv);
    g->tensor = mem_calloc(n_tensor, sizeof *g->tensor);
    g->kv_by_key = mem_calloc(n_kv, sizeof *g->kv_by_key);
    g->tensor_by_name = mem_calloc(n_tensor, sizeof *g->tensor_by_name);
    if (!g->kv || !g->tensor || !g->kv_by_key || !g->tensor_by_name)
        return err_set(c->e, ERR_NOMEM, "%s: out of memory for %llu keys and %llu tensors", c->file,
                       (unsigned long long)n_kv, (unsigned long long)n_tensor);
    return 0;
}

static int take_alignment(struct gguf *g, const struct cursor *c)
{
    g->alignment = GGUF_DEFAULT_ALIGNMENT;
    int rc = gguf_get_u32(g, "general.alignment", &g->alignment, c->e);
    if (rc && rc != -ERR_NOTFOUND)
        return rc;
    uint32_t a = g->alignment;
    if (a < 8 || a > MAX_ALIGNMENT || a & (a - 1))
        return err_set(c->e, ERR_FORMAT, "%s: key 'general.alignment': %u is not a power of two from 8 to %d", c->file,
                       a, MAX_ALIGNMENT);
    return 0;
}

static int parse(struct gguf *g, struct cursor *c)
{
    int rc = take_head(g, c);
    for (int64_t i = 0; !rc && i < g->n_kv; i++)
        rc = kv_take(c, &g->kv[i]);
    if (!rc)
        rc = index_keys(g, c);
    if (!rc)
        rc = take_alignment(g, c);
    for (int64_t i = 0; !rc && i < g->n_tensor; i++)
        rc = tensor_take(c, &g->tensor[i]);
    for (int64_t i = 0; !rc && i < g->n_tensor; i++)
        rc = tensor_locate(c, &g->tensor[i], g->alignment);
    return rc ? rc : index_tensors(g, c);
}

int gguf_open_mem(struct gguf **out, const void *data, size_t size_bytes, const char *name, struct err *e)
{
    *out = NULL;
    struct gguf *g = mem_calloc(1, sizeof *g);
    if (!g)
        return err_set(e, ERR_NOMEM, "%s: out of memory", name);
    g->base = data;
    g->size_bytes = size_bytes;
    struct err ignored;
    struct cursor c = {.base = data, .size = size_bytes, .file = name, .e = e ? e : &ignored};
    int rc = parse(g, &c);
    if (rc) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int gguf_open(struct gguf **out, const char *path, struct err *e)
{
    struct file_map map;
    *out = NULL;
    int rc = map_open(&map, path, e);
    if (rc)
        return rc;
    rc = gguf_open_mem(out, map.p, map.size_bytes, path, e);
    if (rc)
        map_close(&map);
    else
        (*out)->map = map;
    return rc;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    map_close(&g->map);
    mem_free(g->kv);
    mem_free(g->tensor);
    mem_free(g->kv_by_key);
    mem_free(g->tensor_by_name);
    mem_free(g);
}
