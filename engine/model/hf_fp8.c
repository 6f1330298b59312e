/* FP8 in Hugging Face directories: what quantization_config may say, and the scales beside a tensor.
 *
 * Sources: DeepSeek-V3's README_WEIGHTS.md, vLLM's layers/quantization/fp8.py and compressed_tensors/, AutoFP8's
 * README. X.weight is F8_E4M3 (torch.float8_e4m3fn), [n_out, n_in], and beside it are, in F32, F16 or BF16,
 *
 *   X.weight_scale      one number, [] or [1]      AutoFP8 (quant_method fp8), compressed-tensors' strategy tensor
 *                       [n_out, 1]                 strategy channel
 *                       [n_out / 128, n_in / 128]  strategy block, rounded up
 *   X.weight_scale_inv  the same                   DeepSeek-V3, Qwen3-FP8 (quant_method fp8, weight_block_size)
 *
 * all of which multiply the codes, the inverse too. Which it is the shape says. Scales of activations, of K and of V
 * (X.input_scale, X.k_scale, ...) are for who quantises those with numbers of the checkpoint's. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_impl.h"
#include "safetensors.h"

enum { MAX_NAME = 256 };

/* ---- config.json ---- */

static int refuse(const char *key, const json_t *value, const char *known, struct err *e)
{
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    int rc = err_set(e, ERR_FORMAT, "config.json: quantization_config: %s: %.64s is not supported (%s)", key,
                     text ? text : "nothing", known);
    free(text); /* jansson's */
    return rc;
}

static bool is_text(const json_t *v, const char *text)
{
    return json_is_string(v) && !strcmp(json_string_value(v), text);
}

static bool is_absent(const json_t *v)
{
    return !v || json_is_null(v);
}

static bool is_block(const json_t *v)
{
    return json_array_size(v) == 2 && json_integer_value(json_array_get(v, 0)) == FP8_BLOCK &&
           json_integer_value(json_array_get(v, 1)) == FP8_BLOCK;
}

static int check_fp8(const json_t *q, struct err *e)
{
    const json_t *fmt = json_object_get(q, "fmt"), *block = json_object_get(q, "weight_block_size");
    if (!is_absent(fmt) && !is_text(fmt, "e4m3"))
        return refuse("fmt", fmt, "e4m3", e);
    if (!is_absent(block) && !is_block(block))
        return refuse("weight_block_size", block, "[128,128]", e);
    return 0;
}

static int check_format(const json_t *v, struct err *e)
{
    bool apart = is_absent(v) || is_text(v, "float-quantized") || is_text(v, "naive-quantized"); /* codes and scales */
    return apart ? 0 : refuse("format", v, "float-quantized, naive-quantized", e);
}

static int check_group(const json_t *group, struct err *e)
{
    const json_t *w = json_object_get(group, "weights"), *strategy = json_object_get(w, "strategy"),
                 *bits = json_object_get(w, "num_bits"), *block = json_object_get(w, "block_structure");
    int rc = check_format(json_object_get(group, "format"), e);
    if (rc || is_absent(w))
        return rc;
    if (!is_text(json_object_get(w, "type"), "float"))
        return refuse("weights: type", json_object_get(w, "type"), "float", e);
    if (json_integer_value(bits) != 8)
        return refuse("weights: num_bits", bits, "8", e);
    if (!is_text(strategy, "tensor") && !is_text(strategy, "channel") && !is_text(strategy, "block"))
        return refuse("weights: strategy", strategy, "tensor, channel, block", e);
    if (is_text(strategy, "block") && !is_block(block))
        return refuse("weights: block_structure", block, "[128,128]", e);
    return 0;
}

static int check_compressed(const json_t *q, struct err *e)
{
    const json_t *sparse = json_object_get(json_object_get(q, "sparsity_config"), "format"), *group;
    const char *name;
    int rc = check_format(json_object_get(q, "format"), e);
    if (!rc && !is_absent(sparse) && !is_text(sparse, "dense"))
        rc = refuse("sparsity_config: format", sparse, "dense", e);
    json_object_foreach(json_object_get(q, "config_groups"), name, group)
    {
        if (!rc)
            rc = check_group(group, e);
    }
    return rc;
}

int model_check_quantization(const json_t *config, struct err *e)
{
    const json_t *q = json_object_get(config, "quantization_config");
    if (is_absent(q)) /* as compressed-tensors once wrote it */
        q = json_object_get(config, "compression_config");
    const json_t *method = json_object_get(q, "quant_method");
    if (is_absent(q))
        return 0;
    if (is_text(method, "fp8"))
        return check_fp8(q, e);
    if (is_text(method, "compressed-tensors"))
        return check_compressed(q, e);
    return refuse("quant_method", method, "fp8, compressed-tensors", e);
}

/* ---- Scales ---- */

static const struct st_tensor *find_scale(const struct safetensors *st, const char *name)
{
    static const char *const tail[] = {"_scale", "_scale_inv"};
    const struct st_tensor *t = NULL;
    char of[MAX_NAME];
    for (int i = 0; !t && i < 2; i++)
        if (snprintf(of, sizeof of, "%s%s", name, tail[i]) < (int)sizeof of)
            t = st_find(st, of);
    return t;
}

int model_find_scales(const struct safetensors *st, const char *name, const struct tensor *codes,
                      struct fp8_scales *out, struct err *e)
{
    const struct st_tensor *t = find_scale(st, name);
    if (!t)
        return err_set(e, ERR_FORMAT, "tensor %s: F8_E4M3 without %s_scale or %s_scale_inv", name, name, name);
    if (t->type != DT_F32 && t->type != DT_F16 && t->type != DT_BF16)
        return err_set(e, ERR_FORMAT, "tensor %s: scales of type %s are not supported (F32, F16, BF16)", t->name,
                       t->type_name);
    int64_t n_row = t->n_dim ? t->dim[0] : 1, n_col = t->n_dim > 1 ? t->dim[1] : 1;
    int64_t down = (codes->n_row + FP8_BLOCK - 1) / FP8_BLOCK, across = (codes->n_col + FP8_BLOCK - 1) / FP8_BLOCK;
    *out = (struct fp8_scales){.data = t->data, .type = t->type, .n_col = n_col};
    if (t->n_dim <= 2 && n_row == 1 && n_col == 1) {
        out->rows = codes->n_row;
        out->cols = codes->n_col;
    } else if (t->n_dim <= 2 && n_row == codes->n_row && n_col == 1) {
        out->rows = 1;
        out->cols = codes->n_col;
    } else if (t->n_dim == 2 && n_row == down && n_col == across) {
        out->rows = out->cols = FP8_BLOCK;
    } else {
        return err_set(
            e, ERR_FORMAT,
            "tensor %s: %lld x %lld scales for %lld x %lld codes: neither one, nor one for each row, nor one for "
            "each block of 128 x 128",
            t->name, (long long)n_row, (long long)n_col, (long long)codes->n_row, (long long)codes->n_col);
    }
    return 0;
}

int32_t model_count_activation_scales(const struct safetensors *st)
{
    static const char *const tail[] = {".input_scale", ".activation_scale", ".output_scale", ".q_scale",
                                       ".k_scale",     ".v_scale",          ".kv_scale"};
    int32_t n = 0;
    for (int32_t i = 0; i < st->n_tensor; i++)
        for (size_t k = 0; k < sizeof tail / sizeof *tail; k++) {
            size_t len = strlen(st->tensor[i].name), n_tail = strlen(tail[k]);
            n += len >= n_tail && !strcmp(st->tensor[i].name + len - n_tail, tail[k]);
        }
    return n;
}
