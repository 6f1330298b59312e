#include "model/fp8.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "pool.h"
#include "wake.h"

enum { CHUNK_BYTES = 1 << 30, ALIGN = 64, PIECE_BYTES = 1 << 18 };

/* ---- Places ---- */

static int add_chunk(struct fp8_store *s, size_t bytes, struct err *e)
{
    struct fp8_chunk *grown = mem_realloc(s->chunk, ((size_t)s->n_chunk + 1) * sizeof *grown);
    if (!grown)
        return err_set(e, ERR_NOMEM, "out of memory");
    s->chunk = grown;
    bytes = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return err_set(e, ERR_NOMEM, "no room for %zu MiB of weights in FP8", bytes >> 20);
    s->chunk[s->n_chunk++] = (struct fp8_chunk){.p = p, .size_bytes = bytes};
    return 0;
}

static int take_bytes(struct fp8_store *s, size_t bytes, void **out, struct err *e)
{
    struct fp8_chunk *c = s->n_chunk ? &s->chunk[s->n_chunk - 1] : NULL;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!c || c->size_bytes - c->used_bytes < bytes) {
        int rc = add_chunk(s, bytes, e);
        if (rc)
            return rc;
        c = &s->chunk[s->n_chunk - 1];
    }
    *out = c->p + c->used_bytes;
    c->used_bytes += bytes;
    return 0;
}

static struct fp8_item *new_item(struct fp8_store *s)
{
    if (s->n_item == s->cap_item) {
        int32_t cap = s->cap_item ? 2 * s->cap_item : 64;
        struct fp8_item *grown = mem_realloc(s->item, (size_t)cap * sizeof *grown);
        if (!grown)
            return NULL;
        s->item = grown;
        s->cap_item = cap;
    }
    return &s->item[s->n_item++];
}

int fp8_add(struct fp8_store *s, const char *name, const struct tensor *from, const struct fp8_scales *scale,
            struct tensor *to, struct err *e)
{
    int32_t type = fp8_fits(from->n_col) ? DT_FP8 : DT_F32;
    struct fp8_item *item = new_item(s);
    void *data = NULL;
    if (!item)
        return err_set(e, ERR_NOMEM, "out of memory");
    *item = (struct fp8_item){.from = *from, .scale = scale ? *scale : (struct fp8_scales){0}};
    snprintf(item->name, sizeof item->name, "%s", name);
    int rc = take_bytes(s, dtype_row_bytes(type, from->n_col) * (size_t)from->n_row, &data, e);
    item->to = (struct tensor){.data = data, .type = type, .n_row = from->n_row, .n_col = from->n_col};
    if (!rc)
        *to = item->to;
    return rc;
}

bool fp8_has(const struct fp8_store *s, const void *data)
{
    for (const struct fp8_chunk *c = s->chunk; c < s->chunk + s->n_chunk; c++)
        if ((uintptr_t)data - (uintptr_t)c->p < c->used_bytes)
            return true;
    return false;
}

void fp8_drop(const struct fp8_store *s)
{
    for (const struct fp8_chunk *c = s->chunk; c < s->chunk + s->n_chunk; c++)
        madvise(c->p, c->used_bytes, MADV_DONTNEED);
}

void fp8_free(struct fp8_store *s)
{
    for (const struct fp8_chunk *c = s->chunk; c < s->chunk + s->n_chunk; c++)
        munmap(c->p, c->size_bytes);
    mem_free(s->chunk);
    mem_free(s->item);
    *s = (struct fp8_store){0};
}

/* ---- Values ---- */

static float scale_at(const struct fp8_scales *s, int64_t row, int64_t col)
{
    float f;
    int64_t i = row / s->rows * s->n_col + col / s->cols;
    dtype_to_f32(s->type, s->data + dtype_row_bytes(s->type, i), &f, 1);
    return f;
}

/* What is wrong with n codes under a scale, or NULL. Back ends read a code that is NaN as 480. */
static const char *check_codes(const uint8_t *code, int64_t n, float scale)
{
    int n_nan = 0;
    for (int64_t i = 0; i < n; i++)
        n_nan += (code[i] & 0x7f) == 0x7f;
    return !isfinite(scale * 448) ? "a scale that is not finite or too large"
           : n_nan                ? "a code that is not a number"
                                  : NULL;
}

static const char *join_row(const struct fp8_item *t, int64_t row, uint8_t *to)
{
    int64_t n = t->from.n_col;
    const uint8_t *code = (const uint8_t *)t->from.data + row * n;
    const char *why = NULL;
    for (int64_t at = 0; !why && at < n; at += FP8_BLOCK, code += FP8_BLOCK) {
        int64_t len = n - at < FP8_BLOCK ? n - at : FP8_BLOCK;
        float scale = scale_at(&t->scale, row, at);
        why = check_codes(code, len, scale);
        if (t->to.type == DT_FP8) {
            memcpy(to, &scale, sizeof scale);
            memcpy(to + sizeof scale, code, FP8_BLOCK);
            to += sizeof scale + FP8_BLOCK;
        }
        for (int64_t i = 0; t->to.type == DT_F32 && i < len; i++, to += sizeof scale)
            memcpy(to, &(float){e4m3_to_f32(code[i]) * scale}, sizeof scale);
    }
    return why;
}

static const char *round_row(const struct fp8_item *t, int64_t row, uint8_t *to, float *x)
{
    int64_t n = t->from.n_col;
    bool finite = true;
    dtype_to_f32(t->from.type, (const uint8_t *)t->from.data + dtype_row_bytes(t->from.type, n) * (size_t)row, x, n);
    for (int64_t i = 0; i < n; i++)
        finite &= isfinite(x[i]) != 0;
    dtype_from_f32(DT_FP8, x, to, n);
    return finite ? NULL : "a value that is not finite";
}

static const char *make_row(const struct fp8_item *t, int64_t row, float *scratch)
{
    uint8_t *to = (uint8_t *)(uintptr_t)t->to.data + dtype_row_bytes(t->to.type, t->to.n_col) * (size_t)row;
    return t->scale.data ? join_row(t, row, to) : round_row(t, row, to, scratch);
}

struct fill_job { /* rows of a tensor are handed out a piece at a time */
    const struct fp8_item *item;
    int64_t piece, cap;
    float *scratch;         /* [worker][cap] */
    atomic_llong next, bad; /* bad: the first row that something is wrong with; n_row: none */
};

static void note_bad(atomic_llong *bad, long long row)
{
    long long first = atomic_load(bad);
    while (row < first && !atomic_compare_exchange_weak(bad, &first, row))
        ;
}

static void fill_pieces(void *arg, int worker)
{
    struct fill_job *j = arg;
    int64_t row, n_row = j->item->to.n_row;
    while ((row = atomic_fetch_add_explicit(&j->next, j->piece, memory_order_relaxed)) < n_row)
        for (int64_t end = row + j->piece < n_row ? row + j->piece : n_row; row < end; row++)
            if (make_row(j->item, row, j->scratch + worker * j->cap))
                note_bad(&j->bad, row);
}

static int fill_item(struct pool *pool, struct fill_job *j, const struct fp8_item *t, struct err *e)
{
    j->item = t;
    j->piece = PIECE_BYTES / t->to.n_col + 1;
    atomic_store(&j->next, 0);
    atomic_store(&j->bad, t->to.n_row);
    pool_run(pool, fill_pieces, j);
    int64_t row = atomic_load(&j->bad);
    return row == t->to.n_row ? 0
                              : err_set(e, ERR_FORMAT, "tensor %s: row %lld has %s", t->name, (long long)row,
                                        make_row(t, row, j->scratch));
}

int fp8_fill(struct fp8_store *s, int32_t n_thread, struct err *e)
{
    struct fill_job j = {.cap = 0};
    struct pool *pool = NULL;
    int64_t start_ns = clock_ns();
    size_t bytes = 0;
    if (!s->n_item)
        return 0;
    for (const struct fp8_item *t = s->item; t < s->item + s->n_item; t++)
        j.cap = t->to.n_col > j.cap ? t->to.n_col : j.cap;
    n_thread = n_thread > 0 ? n_thread : (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    j.scratch = mem_calloc((size_t)n_thread * (size_t)j.cap, sizeof *j.scratch);
    int rc = j.scratch ? pool_create(&pool, n_thread, e) : err_set(e, ERR_NOMEM, "out of memory");
    for (const struct fp8_item *t = s->item; !rc && t < s->item + s->n_item; t++) {
        rc = fill_item(pool, &j, t, e);
        bytes += dtype_row_bytes(t->to.type, t->to.n_col) * (size_t)t->to.n_row;
    }
    pool_free(pool);
    mem_free(j.scratch);
    if (!rc)
        log_line(LOG_INFO, "weights made", "type=FP8 tensors=%d mib=%zu ms=%lld", s->n_item, bytes >> 20,
                 (long long)(clock_ns() - start_ns) / 1000000);
    return rc;
}
