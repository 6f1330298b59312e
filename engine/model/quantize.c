#include "quantize.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "dtype.h"
#include "mem.h"
#include "model/gguf.h"
#include "model/gguf_write.h"

enum { CHUNK_ELEM = 1 << 16 }; /* converted at a time, rounded up to a row */

/* What the user may ask for. file_type is llama.cpp's number for general.file_type. */
static const struct target {
    const char *name;
    int type;      /* of ordinary matrices */
    int more_bits; /* of the sensitive ones */
    int file_type;
} target_table[] = {
    {"F32", DT_F32, DT_F32, 0},       {"F16", DT_F16, DT_F16, 1},     {"BF16", DT_BF16, DT_BF16, 32},
    {"Q8_0", DT_Q8_0, DT_Q8_0, 7},    {"Q4_0", DT_Q4_0, DT_Q4_0, 2},  {"Q4_K", DT_Q4_K, DT_Q4_K, 14},
    {"Q5_K", DT_Q5_K, DT_Q5_K, 16},   {"Q6_K", DT_Q6_K, DT_Q6_K, 18}, {"Q4_K_M", DT_Q4_K, DT_Q6_K, 15},
    {"Q5_K_M", DT_Q5_K, DT_Q6_K, 17}, {"MXFP4", DT_MXFP4, DT_Q8_0, 38},
};

const char *model_quantize_types(void)
{
    return "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, Q4_K_M, Q5_K_M, MXFP4";
}

static const struct target *target_find(const char *name)
{
    for (size_t i = 0; i < sizeof target_table / sizeof *target_table; i++)
        if (!strcasecmp(target_table[i].name, name))
            return &target_table[i];
    return NULL;
}

/* ---- which tensor becomes what ---- */

struct job { /* one call of model_quantize */
    const struct target *target;
    struct gguf *in;
    struct gguf_writer *out;
    int n_layer;
    bool is_tied;     /* no output matrix: the embedding serves as one */
    float *row_f32;   /* [chunk_elem] */
    uint8_t *row_out; /* the same, converted */
    int64_t chunk_cap;
    struct err *e;
};

static bool ends_with(struct slice s, const char *tail)
{
    size_t n = strlen(tail);
    return s.len >= n && !memcmp(s.p + s.len - n, tail, n);
}

/* "blk.12.attn_v.weight" -> 12; -1 when the tensor is of no layer. */
static int layer_of(struct slice name)
{
    if (name.len < 5 || memcmp(name.p, "blk.", 4))
        return -1;
    int layer = 0;
    size_t i = 4;
    for (; i < name.len && i < 10 && name.p[i] >= '0' && name.p[i] <= '9'; i++)
        layer = layer * 10 + (name.p[i] - '0');
    return i > 4 && i < name.len && name.p[i] == '.' ? layer : -1;
}

/* llama.cpp's rule: the first and last eighth of the layers, and every third between them. */
static bool layer_gets_more_bits(int layer, int n_layer)
{
    int eighth = n_layer / 8;
    return layer < eighth || layer >= 7 * n_layer / 8 || (layer - eighth) % 3 == 2;
}

static bool is_sensitive(const struct job *j, struct slice name)
{
    if (slice_eq(name, "output.weight") || (j->is_tied && slice_eq(name, "token_embd.weight")))
        return true;
    int layer = layer_of(name);
    return layer >= 0 &&
           (ends_with(name, ".attn_v.weight") || ends_with(name, ".ffn_down.weight") ||
            ends_with(name, ".ffn_down_exps.weight")) &&
           layer_gets_more_bits(layer, j->n_layer);
}

static bool is_kept_f32(const struct gguf_tensor *t)
{
    return t->n_row == 1 || ends_with(t->name, "_norm.weight") || ends_with(t->name, ".ffn_gate_inp.weight") ||
           !ends_with(t->name, ".weight");
}

static int type_for(const struct job *j, const struct gguf_tensor *t)
{
    if (is_kept_f32(t))
        return DT_F32;
    int type = is_sensitive(j, t->name) ? j->target->more_bits : j->target->type;
    if (!dtype_row_bytes(type, t->dim[0]))
        type = DT_Q8_0;
    return dtype_row_bytes(type, t->dim[0]) ? type : DT_F16;
}

static double bits_per_weight(int type)
{
    const struct dtype_info *info = dtype_info(type);
    return 8.0 * info->block_bytes / info->block_len;
}

static int tensor_check(const struct job *j, const struct gguf_tensor *t)
{
    const struct dtype_info *from = dtype_info(t->type);
    if (!from)
        return err_set(j->e, ERR_FORMAT, "tensor '%.*s' is of type %d, which Galley cannot read", (int)t->name.len,
                       t->name.p, t->type);
    const struct dtype_info *to = dtype_info(type_for(j, t));
    if (from->block_len > 1 && to->block_len > 1 && bits_per_weight(t->type) < bits_per_weight(type_for(j, t)))
        return err_set(j->e, ERR_INVALID, "tensor '%.*s' is already %s: going up to %s would only add bytes",
                       (int)t->name.len, t->name.p, from->name, to->name);
    return 0;
}

/* ---- head ---- */

static void count_layers(struct job *j)
{
    j->is_tied = !gguf_tensor_find(j->in, "output.weight");
    for (int64_t i = 0; i < j->in->n_tensor; i++) {
        int layer = layer_of(j->in->tensor[i].name);
        if (layer >= j->n_layer)
            j->n_layer = layer + 1;
    }
}

static int write_head(struct job *j)
{
    static const char *const own[] = {"general.file_type", "general.quantization_version", "general.alignment"};
    for (int64_t i = 0; i < j->in->n_kv; i++) {
        bool is_own = false;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            is_own |= slice_eq(j->in->kv[i].key, own[k]);
        if (!is_own)
            gguf_put_kv(j->out, &j->in->kv[i]);
    }
    gguf_put_u32(j->out, "general.file_type", (uint32_t)j->target->file_type);
    if (dtype_info(j->target->type)->block_len > 1)
        gguf_put_u32(j->out, "general.quantization_version", 2);
    for (int64_t i = 0; i < j->in->n_tensor; i++) {
        const struct gguf_tensor *t = &j->in->tensor[i];
        int rc = tensor_check(j, t);
        if (!rc)
            rc = gguf_put_tensor(j->out, t->name, t->n_dim, t->dim, type_for(j, t), j->e);
        if (rc)
            return rc;
    }
    return gguf_write_head(j->out, j->e);
}

/* ---- data ---- */

static int values_check(const struct job *j, const struct gguf_tensor *t, int type, int64_t n)
{
    float limit = type == DT_F16 ? 65504.0f : INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(j->row_f32[i]))
            return err_set(j->e, ERR_FORMAT, "tensor '%.*s' has a value that is not finite", (int)t->name.len,
                           t->name.p);
        if (fabsf(j->row_f32[i]) > limit)
            return err_set(j->e, ERR_INVALID, "tensor '%.*s' has the value %g, beyond the range of F16",
                           (int)t->name.len, t->name.p, (double)j->row_f32[i]);
    }
    return 0;
}

static int chunk_reserve(struct job *j, int64_t n)
{
    if (n <= j->chunk_cap)
        return 0;
    mem_free(j->row_f32);
    mem_free(j->row_out);
    j->row_f32 = mem_calloc((size_t)n, sizeof(float));
    j->row_out = mem_calloc((size_t)n, sizeof(float)); /* no type is wider than F32 */
    if (!j->row_f32 || !j->row_out)
        return err_set(j->e, ERR_NOMEM, "out of memory for a row of %lld elements", (long long)n);
    j->chunk_cap = n;
    return 0;
}

static int tensor_convert(struct job *j, const struct gguf_tensor *t)
{
    int type = type_for(j, t);
    size_t in_row = dtype_row_bytes(t->type, t->dim[0]), out_row = dtype_row_bytes(type, t->dim[0]);
    int64_t rows_at_once = CHUNK_ELEM / t->dim[0] + 1;
    if (rows_at_once > t->n_row)
        rows_at_once = t->n_row;
    int rc = chunk_reserve(j, rows_at_once * t->dim[0]);
    for (int64_t row = 0; !rc && row < t->n_row; row += rows_at_once) {
        int64_t n_row = t->n_row - row < rows_at_once ? t->n_row - row : rows_at_once, n = n_row * t->dim[0];
        const uint8_t *src = t->data + (size_t)row * in_row;
        dtype_to_f32(t->type, src, j->row_f32, n);
        rc = values_check(j, t, type, n);
        if (!rc && type != t->type)
            dtype_from_f32(type, j->row_f32, j->row_out, n);
        if (!rc)
            rc = gguf_write_data(j->out, type == t->type ? src : j->row_out, (size_t)n_row * out_row, j->e);
    }
    return rc;
}

int model_quantize(const char *in_path, const char *out_path, const char *type_name, struct err *e)
{
    struct job j = {.target = target_find(type_name), .e = e};
    if (!j.target)
        return err_set(e, ERR_INVALID, "unknown type '%s'; known are %s", type_name, model_quantize_types());
    int rc = gguf_open(&j.in, in_path, e);
    if (rc)
        goto out;
    count_layers(&j);
    rc = gguf_writer_open(&j.out, out_path, j.in->alignment, e);
    if (rc)
        goto out;
    rc = write_head(&j);
    for (int64_t i = 0; !rc && i < j.in->n_tensor; i++)
        rc = tensor_convert(&j, &j.in->tensor[i]);
    if (!rc)
        rc = gguf_writer_finish(j.out, e);
out:
    gguf_writer_close(j.out);
    gguf_close(j.in);
    mem_free(j.row_f32);
    mem_free(j.row_out);
    return rc;
}
