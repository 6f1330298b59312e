#include "gguf_write.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "dtype.h"
#include "mem.h"

struct buf {
    uint8_t *p;
    size_t len, cap;
    bool failed; /* out of memory at some point: the content is void */
};

struct gguf_writer { /* owned by the caller of gguf_writer_open */
    char *path, *tmp_path;
    FILE *f;
    uint32_t alignment;
    struct buf kv, tensor_info;
    uint64_t n_kv, n_tensor;
    uint64_t *tensor_bytes; /* [n_tensor] */
    size_t tensor_cap;
    uint64_t data_end;  /* of what is declared, from the start of the data */
    uint64_t at_tensor; /* being written */
    uint64_t at_byte;   /* within it */
    bool is_done;
};

/* ---- bytes ---- */

static void buf_put(struct buf *b, const void *data, size_t n)
{
    if (b->failed)
        return;
    if (n > b->cap - b->len) {
        size_t cap = b->cap * 2 > b->len + n ? b->cap * 2 : b->len + n + 1024;
        uint8_t *p = mem_realloc(b->p, cap);
        if (!p) {
            b->failed = true;
            return;
        }
        b->p = p;
        b->cap = cap;
    }
    if (n)
        memcpy(b->p + b->len, data, n);
    b->len += n;
}

static void buf_u32(struct buf *b, uint32_t v)
{
    buf_put(b, &v, 4);
}

static void buf_u64(struct buf *b, uint64_t v)
{
    buf_put(b, &v, 8);
}

static void buf_str(struct buf *b, struct slice s)
{
    buf_u64(b, s.len);
    buf_put(b, s.p, s.len);
}

/* ---- opening ---- */

int gguf_writer_open(struct gguf_writer **out, const char *path, uint32_t alignment, struct err *e)
{
    *out = NULL;
    struct gguf_writer *w = mem_calloc(1, sizeof *w);
    size_t tmp_size = strlen(path) + 32;
    if (!w || !(w->path = mem_strdup(path)) || !(w->tmp_path = mem_alloc(tmp_size))) {
        gguf_writer_close(w);
        return err_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    w->alignment = alignment ? alignment : GGUF_DEFAULT_ALIGNMENT;
    snprintf(w->tmp_path, tmp_size, "%s.%ld.tmp", path, (long)getpid());
    w->f = fopen(w->tmp_path, "wbe");
    if (!w->f) {
        int rc = err_set(e, ERR_IO, "%s: %s", w->tmp_path, strerror(errno));
        gguf_writer_close(w);
        return rc;
    }
    if (w->alignment != GGUF_DEFAULT_ALIGNMENT)
        gguf_put_u32(w, "general.alignment", w->alignment);
    *out = w;
    return 0;
}

void gguf_writer_close(struct gguf_writer *w)
{
    if (!w)
        return;
    if (w->f)
        fclose(w->f);
    if (w->f && !w->is_done)
        unlink(w->tmp_path);
    mem_free(w->path);
    mem_free(w->tmp_path);
    mem_free(w->kv.p);
    mem_free(w->tensor_info.p);
    mem_free(w->tensor_bytes);
    mem_free(w);
}

/* ---- metadata ---- */

static struct buf *put_key(struct gguf_writer *w, struct slice key, int type)
{
    w->n_kv++;
    buf_str(&w->kv, key);
    buf_u32(&w->kv, (uint32_t)type);
    return &w->kv;
}

static struct buf *put_c_key(struct gguf_writer *w, const char *key, int type)
{
    return put_key(w, (struct slice){key, strlen(key)}, type);
}

static struct buf *put_arr_key(struct gguf_writer *w, const char *key, int elem_type, uint64_t n)
{
    struct buf *b = put_c_key(w, key, GGUF_ARR);
    buf_u32(b, (uint32_t)elem_type);
    buf_u64(b, n);
    return b;
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    buf_u32(put_c_key(w, key, GGUF_U32), v);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float v)
{
    buf_put(put_c_key(w, key, GGUF_F32), &v, 4);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool v)
{
    buf_put(put_c_key(w, key, GGUF_BOOL), &(uint8_t){v}, 1);
}

void gguf_put_str(struct gguf_writer *w, const char *key, const char *v)
{
    buf_str(put_c_key(w, key, GGUF_STR), (struct slice){v, strlen(v)});
}

void gguf_put_strs(struct gguf_writer *w, const char *key, const struct slice *v, uint64_t n)
{
    struct buf *b = put_arr_key(w, key, GGUF_STR, n);
    for (uint64_t i = 0; i < n; i++)
        buf_str(b, v[i]);
}

void gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, uint64_t n)
{
    buf_put(put_arr_key(w, key, GGUF_I32, n), v, n * sizeof *v);
}

void gguf_put_f32s(struct gguf_writer *w, const char *key, const float *v, uint64_t n)
{
    buf_put(put_arr_key(w, key, GGUF_F32, n), v, n * sizeof *v);
}

void gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv)
{
    struct buf *b = put_key(w, kv->key, kv->type);
    if (kv->type == GGUF_ARR) {
        buf_u32(b, (uint32_t)kv->elem_type);
        buf_u64(b, kv->n);
    }
    buf_put(b, kv->val, kv->val_bytes);
}

/* ---- tensors ---- */

static uint64_t padded(const struct gguf_writer *w, uint64_t n)
{
    return (n + w->alignment - 1) / w->alignment * w->alignment;
}

int gguf_put_tensor(struct gguf_writer *w, struct slice name, int n_dim, const int64_t *dim, int type, struct err *e)
{
    uint64_t size_bytes = dtype_row_bytes(type, dim[0]);
    bool overflow = false;
    for (int i = 1; i < n_dim; i++)
        overflow |= __builtin_mul_overflow(size_bytes, (uint64_t)dim[i], &size_bytes);
    if (n_dim < 1 || n_dim > GGUF_MAX_DIM || name.len == 0 || name.len > GGUF_MAX_NAME || size_bytes == 0 || overflow)
        return err_set(e, ERR_INVALID, "%s: tensor '%.*s' cannot be written as type %d", w->path, (int)name.len, name.p,
                       type);
    if (w->n_tensor == w->tensor_cap) {
        size_t cap = w->tensor_cap ? w->tensor_cap * 2 : 64;
        uint64_t *p = mem_realloc(w->tensor_bytes, cap * sizeof *p);
        if (!p)
            return err_set(e, ERR_NOMEM, "%s: out of memory", w->path);
        w->tensor_bytes = p;
        w->tensor_cap = cap;
    }
    w->tensor_bytes[w->n_tensor++] = size_bytes;
    struct buf *b = &w->tensor_info;
    buf_str(b, name);
    buf_u32(b, (uint32_t)n_dim);
    for (int i = 0; i < n_dim; i++)
        buf_u64(b, (uint64_t)dim[i]);
    buf_u32(b, (uint32_t)type);
    buf_u64(b, w->data_end);
    w->data_end = padded(w, w->data_end + size_bytes);
    return 0;
}

/* ---- the file ---- */

static int write_bytes(struct gguf_writer *w, const void *data, size_t n, struct err *e)
{
    if (n && fwrite(data, 1, n, w->f) != n)
        return err_set(e, ERR_IO, "%s: cannot be written: %s", w->tmp_path, strerror(errno));
    return 0;
}

/* Zeros after n bytes, up to the alignment. */
static int write_padding(struct gguf_writer *w, uint64_t n, struct err *e)
{
    static const uint8_t zero[256];
    int rc = 0;
    for (uint64_t left = padded(w, n) - n; !rc && left;) {
        size_t now = left < sizeof zero ? (size_t)left : sizeof zero;
        rc = write_bytes(w, zero, now, e);
        left -= now;
    }
    return rc;
}

int gguf_write_head(struct gguf_writer *w, struct err *e)
{
    if (w->kv.failed || w->tensor_info.failed)
        return err_set(e, ERR_NOMEM, "%s: out of memory for the metadata", w->path);
    struct buf head = {0};
    buf_put(&head, "GGUF", 4);
    buf_u32(&head, 3);
    buf_u64(&head, w->n_tensor);
    buf_u64(&head, w->n_kv);
    int rc = head.failed ? err_set(e, ERR_NOMEM, "%s: out of memory", w->path) : 0;
    if (!rc)
        rc = write_bytes(w, head.p, head.len, e);
    if (!rc)
        rc = write_bytes(w, w->kv.p, w->kv.len, e);
    if (!rc)
        rc = write_bytes(w, w->tensor_info.p, w->tensor_info.len, e);
    if (!rc)
        rc = write_padding(w, head.len + w->kv.len + w->tensor_info.len, e);
    mem_free(head.p);
    return rc;
}

int gguf_write_data(struct gguf_writer *w, const void *data, size_t size_bytes, struct err *e)
{
    const uint8_t *p = data;
    int rc = 0;
    while (!rc && size_bytes) {
        if (w->at_tensor == w->n_tensor)
            return err_set(e, ERR_INVALID, "%s: more data than tensors", w->path);
        uint64_t total = w->tensor_bytes[w->at_tensor], room = total - w->at_byte;
        size_t now = size_bytes < room ? size_bytes : (size_t)room;
        rc = write_bytes(w, p, now, e);
        p += now;
        size_bytes -= now;
        w->at_byte += now;
        if (!rc && w->at_byte == total) {
            rc = write_padding(w, total, e); /* every tensor starts aligned */
            w->at_byte = 0;
            w->at_tensor++;
        }
    }
    return rc;
}

int gguf_writer_finish(struct gguf_writer *w, struct err *e)
{
    if (w->at_tensor != w->n_tensor)
        return err_set(e, ERR_INVALID, "%s: data of %llu tensors is missing", w->path,
                       (unsigned long long)(w->n_tensor - w->at_tensor));
    if (fflush(w->f) || fsync(fileno(w->f)))
        return err_set(e, ERR_IO, "%s: cannot be written: %s", w->tmp_path, strerror(errno));
    if (rename(w->tmp_path, w->path))
        return err_set(e, ERR_IO, "%s: cannot be renamed to %s: %s", w->tmp_path, w->path, strerror(errno));
    w->is_done = true;
    return 0;
}
