/* Typed access to a GGUF file's metadata. */
#include <stdlib.h>
#include <string.h>

#include "gguf.h"

static const char *const type_name[GGUF_N_TYPE] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64",
};

static int key_cmp(const void *key, const void *slot)
{
    const struct slice *k = key, s = (*(const struct gguf_kv *const *)slot)->key;
    int d = memcmp(k->p, s.p, k->len < s.len ? k->len : s.len);
    return d ? d : (k->len > s.len) - (k->len < s.len);
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
    struct slice k = {key, strlen(key)};
    const struct gguf_kv *const *slot = bsearch(&k, g->kv_by_key, (size_t)g->n_kv, sizeof *g->kv_by_key, key_cmp);
    return slot ? *slot : NULL;
}

static int name_cmp(const void *key, const void *slot)
{
    const struct slice *k = key, s = (*(const struct gguf_tensor *const *)slot)->name;
    int d = memcmp(k->p, s.p, k->len < s.len ? k->len : s.len);
    return d ? d : (k->len > s.len) - (k->len < s.len);
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    struct slice k = {name, strlen(name)};
    const struct gguf_tensor *const *slot =
        bsearch(&k, g->tensor_by_name, (size_t)g->n_tensor, sizeof *g->tensor_by_name, name_cmp);
    return slot ? *slot : NULL;
}

/* ---- one value ---- */

static int get(const struct gguf *g, const char *key, bool is_array, const struct gguf_kv **kv, struct err *e)
{
    *kv = gguf_find(g, key);
    if (!*kv)
        return err_set(e, ERR_NOTFOUND, "key '%s' is missing", key);
    if (((*kv)->type == GGUF_ARR) != is_array)
        return err_set(e, ERR_FORMAT, "key '%s' is of type %s, which does not fit", key, type_name[(*kv)->type]);
    return 0;
}

static int mismatch(const struct gguf_kv *kv, const char *want, struct err *e)
{
    return err_set(e, ERR_FORMAT, "key '%.*s' is of type %s%s, want %s", (int)kv->key.len, kv->key.p,
                   type_name[kv->elem_type], kv->type == GGUF_ARR ? "[]" : "", want);
}

static int out_of_range(const struct gguf_kv *kv, struct err *e)
{
    return err_set(e, ERR_FORMAT, "key '%.*s' has a value out of range", (int)kv->key.len, kv->key.p);
}

/* Element i as an integer of 64 bits; *is_neg says how to read it. False when the elements are not integers. */
static bool integer_at(const struct gguf_kv *kv, uint64_t i, uint64_t *v, bool *is_neg)
{
    int64_t s = 0;
    *v = 0;
    *is_neg = false;
    switch (kv->elem_type) {
    case GGUF_BOOL:
    case GGUF_U8:
        *v = kv->val[i];
        return true;
    case GGUF_U16:
        memcpy(v, kv->val + 2 * i, 2);
        return true;
    case GGUF_U32:
        memcpy(v, kv->val + 4 * i, 4);
        return true;
    case GGUF_U64:
        memcpy(v, kv->val + 8 * i, 8);
        return true;
    case GGUF_I8:
        s = (int8_t)kv->val[i];
        break;
    case GGUF_I16: {
        int16_t t;
        memcpy(&t, kv->val + 2 * i, 2);
        s = t;
        break;
    }
    case GGUF_I32: {
        int32_t t;
        memcpy(&t, kv->val + 4 * i, 4);
        s = t;
        break;
    }
    case GGUF_I64:
        memcpy(&s, kv->val + 8 * i, 8);
        break;
    default:
        return false;
    }
    *v = (uint64_t)s;
    *is_neg = s < 0;
    return true;
}

static bool float_at(const struct gguf_kv *kv, uint64_t i, float *v)
{
    double d;
    if (kv->elem_type == GGUF_F32) {
        memcpy(v, kv->val + 4 * i, 4);
        return true;
    }
    if (kv->elem_type != GGUF_F64)
        return false;
    memcpy(&d, kv->val + 8 * i, 8);
    *v = (float)d;
    return true;
}

int gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct err *e)
{
    const struct gguf_kv *kv;
    uint64_t v;
    bool is_neg;
    int rc = get(g, key, false, &kv, e);
    if (rc)
        return rc;
    if (kv->type == GGUF_BOOL || !integer_at(kv, 0, &v, &is_neg))
        return mismatch(kv, "an unsigned integer", e);
    if (is_neg)
        return out_of_range(kv, e);
    *out = v;
    return 0;
}

int gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out, struct err *e)
{
    uint64_t v;
    int rc = gguf_get_u64(g, key, &v, e);
    if (rc)
        return rc;
    if (v > UINT32_MAX)
        return out_of_range(gguf_find(g, key), e);
    *out = (uint32_t)v;
    return 0;
}

int gguf_get_f32(const struct gguf *g, const char *key, float *out, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = get(g, key, false, &kv, e);
    if (rc)
        return rc;
    return float_at(kv, 0, out) ? 0 : mismatch(kv, "f32", e);
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = get(g, key, false, &kv, e);
    if (rc)
        return rc;
    if (kv->type != GGUF_BOOL)
        return mismatch(kv, "bool", e);
    *out = kv->val[0] != 0;
    return 0;
}

/* The i-th string at p; the lengths were checked when the file was opened. */
static const uint8_t *string_at(const uint8_t *p, struct slice *s)
{
    uint64_t len;
    memcpy(&len, p, 8);
    *s = (struct slice){(const char *)p + 8, (size_t)len};
    return p + 8 + len;
}

int gguf_get_str(const struct gguf *g, const char *key, struct slice *out, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = get(g, key, false, &kv, e);
    if (rc)
        return rc;
    if (kv->type != GGUF_STR)
        return mismatch(kv, "string", e);
    string_at(kv->val, out);
    return 0;
}

/* ---- arrays ---- */

int gguf_arr_len(const struct gguf *g, const char *key, uint64_t *n, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = get(g, key, true, &kv, e);
    if (rc)
        return rc;
    *n = kv->n;
    return 0;
}

static int get_array(const struct gguf *g, const char *key, uint64_t n, const struct gguf_kv **kv, struct err *e)
{
    int rc = get(g, key, true, kv, e);
    if (!rc && (*kv)->n != n)
        rc = err_set(e, ERR_FORMAT, "key '%s' has %llu elements, want %llu", key, (unsigned long long)(*kv)->n,
                     (unsigned long long)n);
    return rc;
}

int gguf_get_i32s(const struct gguf *g, const char *key, int32_t *out, uint64_t n, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = get_array(g, key, n, &kv, e);
    for (uint64_t i = 0; !rc && i < n; i++) {
        uint64_t v;
        bool is_neg;
        if (!integer_at(kv, i, &v, &is_neg))
            return mismatch(kv, "i32[]", e);
        if (is_neg ? (int64_t)v < INT32_MIN : v > INT32_MAX)
            return out_of_range(kv, e);
        out[i] = (int32_t)(int64_t)v;
    }
    return rc;
}

int gguf_get_f32s(const struct gguf *g, const char *key, float *out, uint64_t n, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = get_array(g, key, n, &kv, e);
    for (uint64_t i = 0; !rc && i < n; i++)
        if (!float_at(kv, i, &out[i]))
            return mismatch(kv, "f32[]", e);
    return rc;
}

int gguf_get_strs(const struct gguf *g, const char *key, struct slice *out, uint64_t n, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = get_array(g, key, n, &kv, e);
    if (rc)
        return rc;
    if (kv->elem_type != GGUF_STR)
        return mismatch(kv, "string[]", e);
    const uint8_t *p = kv->val;
    for (uint64_t i = 0; i < n; i++)
        p = string_at(p, &out[i]);
    return 0;
}

size_t gguf_head_bytes(const struct gguf *g)
{
    size_t first = g->size_bytes;
    for (int64_t i = 0; i < g->n_tensor; i++) {
        size_t at = (size_t)(g->tensor[i].data - g->base);
        first = at < first ? at : first;
    }
    return first;
}
