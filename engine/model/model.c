#include "model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "gguf.h"
#include "log.h"
#include "mem.h"
#include "model_impl.h"
#include "safetensors.h"

void model_begin(struct model *m, const struct family *f)
{
    m->family = f;
    m->desc.flags = f->flags;
    m->desc.embd_scale = m->desc.residual_scale = m->desc.logit_scale = 1;
    m->desc.rope_mscale = m->desc.rope_mscale_1 = 1;
}

void model_set_sampling(struct model *m, const struct sampling_said *said)
{
    struct sampling_defaults *d = &m->info.sampling;
    d->has_temperature = said->temperature >= 0 && said->temperature <= 100;
    d->has_top_p = said->top_p > 0 && said->top_p <= 1;
    d->has_min_p = said->min_p >= 0 && said->min_p <= 1;
    d->has_top_k = said->top_k >= 0 && said->top_k <= INT32_MAX;
    d->has_repetition_penalty = said->repetition_penalty > 0 && said->repetition_penalty <= 100;
    d->temperature = d->has_temperature ? (float)said->temperature : 0;
    d->top_p = d->has_top_p ? (float)said->top_p : 0;
    d->min_p = d->has_min_p ? (float)said->min_p : 0;
    d->top_k = d->has_top_k ? (int32_t)said->top_k : 0;
    d->repetition_penalty = d->has_repetition_penalty ? (float)said->repetition_penalty : 0;
}

int model_check_heads(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    if (d->n_head % d->n_head_kv || d->head_dim > MODEL_MAX_HEAD_DIM || d->head_dim < 2 || d->head_dim % 2 ||
        d->rope_dim % 2 || d->rope_dim > d->head_dim)
        return err_set(e, ERR_FORMAT, "%s: %d heads over %d of %d (rotated %d) do not fit together", m->architecture,
                       d->n_head, d->n_head_kv, d->head_dim, d->rope_dim);
    d->attn_scale = 1 / sqrtf((float)d->head_dim);
    return 0;
}

static bool is_mixed(const uint8_t *kind, int32_t n)
{
    for (int32_t l = 1; l < n; l++)
        if (kind[l] != kind[0])
            return true;
    return false;
}

int model_set_layers(struct model *m, const uint8_t *slides, int32_t window, const struct rope_spec *global,
                     const struct rope_spec *local, const uint8_t *unrotated, struct err *e)
{
    struct model_desc *d = &m->desc;
    int rc = rope_frequencies(global, d->rope_dim, d->rope_inv_freq, &d->rope_mscale, e);
    if (!rc)
        rc = rope_frequencies(local ? local : global, d->rope_dim, d->rope_inv_freq_1, &d->rope_mscale_1, e);
    if (rc)
        return rc;
    if (!is_mixed(slides, d->n_layer)) {
        d->sliding_window = slides[0] ? window : 0;
        if (slides[0]) { /* all rotate as those with a window do */
            memcpy(d->rope_inv_freq, d->rope_inv_freq_1, sizeof d->rope_inv_freq);
            d->rope_mscale = d->rope_mscale_1;
        }
    } else {
        d->sliding_window_1 = window;
        memcpy(d->layer_kind, slides, (size_t)d->n_layer);
    }
    if (!unrotated || !memchr(unrotated, 1, (size_t)d->n_layer))
        return 0;
    if (is_mixed(slides, d->n_layer))
        return err_set(e, ERR_FORMAT, "%s: layers without RoPE beside windows in some layers are not supported",
                       m->architecture);
    d->sliding_window_1 = d->sliding_window;
    memset(d->rope_inv_freq_1, 0, sizeof d->rope_inv_freq_1);
    d->rope_mscale_1 = 1;
    memcpy(d->layer_kind, unrotated, (size_t)d->n_layer);
    return 0;
}

void model_fit_context(struct model *m, int32_t n_ctx)
{
    if (m->short_freq && n_ctx <= m->n_ctx_short)
        memcpy(m->desc.rope_inv_freq, m->short_freq, sizeof *m->short_freq * (size_t)(m->desc.rope_dim / 2));
}

/* Files pad the vocabulary to a round number: rows without a token are left out, so that they are never sampled. */
static int trim_vocab(struct model *m, struct err *e)
{
    int32_t n = tok_n_vocab(m->tok);
    if (n > m->desc.n_vocab)
        return err_set(e, ERR_FORMAT, "the tokenizer has %d tokens, the embedding table only %d rows", n,
                       m->desc.n_vocab);
    m->desc.n_vocab = n;
    m->w.tok_embd.n_row = n;
    if (m->w.out.data)
        m->w.out.n_row = n;
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void name_quant(struct model *m)
{
    const struct layer_weights *first = &m->w.layer[0];
    snprintf(m->info.quant, sizeof m->info.quant, "%s",
             dtype_info(first->expert ? first->expert[0].up.type : first->up.type)->name);
}

static void describe(struct model *m, const char *path)
{
    struct model_info *info = &m->info;
    if (!info->name[0]) {
        snprintf(info->name, sizeof info->name, "%.*s", (int)sizeof info->name - 1, base_name(path));
        char *dot = strstr(info->name, ".gguf");
        if (dot)
            *dot = 0;
    }
    info->n_vocab = m->desc.n_vocab;
    info->n_ctx_train = m->desc.n_ctx_train;
    info->chat_template = m->chat_template;
    info->architecture = m->architecture;
    name_quant(m);
}

static int source_of_model(struct model *m, const char *path, struct err *e)
{
    struct source_file one, *files = &one;
    int32_t n = m->gguf ? 1 : m->st->n_file;
    if (m->gguf) {
        one = (struct source_file){&m->gguf->map, gguf_head_bytes(m->gguf)};
    } else {
        files = mem_calloc((size_t)n, sizeof *files);
        if (!files)
            return err_set(e, ERR_NOMEM, "out of memory");
        for (int32_t i = 0; i < n; i++)
            files[i] = (struct source_file){&m->st->file[i].map, m->st->file[i].data_at};
    }
    int rc = source_open(&m->source, files, n, &m->fp8, path, e);
    if (files != &one)
        mem_free(files);
    m->w.source = &m->source.ops;
    return rc;
}

/* "dir/" and "dir" are one model. */
static int open_path(struct model *m, const char *path, struct err *e)
{
    struct stat st;
    bool is_dir = !stat(path, &st) && S_ISDIR(st.st_mode);
    int rc = is_dir ? model_from_hf(m, path, e) : model_from_gguf(m, path, e);
    if (!rc)
        rc = model_take_tensors(m, e);
    if (!rc)
        rc = trim_vocab(m, e);
    if (!rc)
        rc = source_of_model(m, path, e);
    if (!rc)
        describe(m, path);
    return rc;
}

int model_open(const char *path, struct model *m, struct err *e)
{
    struct err inner = {0};
    char trimmed[4096];
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    snprintf(trimmed, sizeof trimmed, "%.*s", (int)n, path);
    *m = (struct model){0};
    int rc = open_path(m, trimmed, &inner);
    if (rc) {
        model_close(m);
        /* readers of files name them themselves */
        return strstr(inner.msg, base_name(trimmed)) ? err_set(e, -rc, "%s", inner.msg)
                                                     : err_set(e, -rc, "%s: %s", trimmed, inner.msg);
    }
    return 0;
}

/* ---- Weights that are in no file ---- */

static int tensor_to_fp8(struct model *m, int32_t l, const char *part, struct tensor *t, int32_t *n_kept, struct err *e)
{
    char name[64];
    struct tensor from = *t;
    bool wide = from.type == DT_F32 || from.type == DT_F16 || from.type == DT_BF16;
    if (!from.data || !wide)
        return 0;
    if (!fp8_fits(from.n_col)) {
        ++*n_kept;
        return 0;
    }
    snprintf(name, sizeof name, "%s of layer %d", part, l);
    int rc = fp8_add(&m->fp8, name, &from, NULL, t, e);
    double less = (double)dtype_row_bytes(from.type, from.n_col) - (double)dtype_row_bytes(DT_FP8, from.n_col);
    m->weight_bytes -= rc ? 0 : less * (double)from.n_row;
    return rc;
}

static int layer_to_fp8(struct model *m, int32_t l, int32_t *n_kept, struct err *e)
{
    struct layer_weights *w = &m->w.layer[l];
    const struct {
        const char *part;
        struct tensor *t;
    } all[] = {{"attn_q", &w->wq},     {"attn_k", &w->wk}, {"attn_v", &w->wv},    {"attn_output", &w->wo},
               {"ffn_gate", &w->gate}, {"ffn_up", &w->up}, {"ffn_down", &w->down}};
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof all / sizeof *all; i++)
        rc = tensor_to_fp8(m, l, all[i].part, all[i].t, n_kept, e);
    for (int32_t x = 0; !rc && w->expert && x < m->desc.n_expert; x++) {
        rc = tensor_to_fp8(m, l, "ffn_gate_exps", &w->expert[x].gate, n_kept, e);
        if (!rc)
            rc = tensor_to_fp8(m, l, "ffn_up_exps", &w->expert[x].up, n_kept, e);
        if (!rc)
            rc = tensor_to_fp8(m, l, "ffn_down_exps", &w->expert[x].down, n_kept, e);
    }
    return rc;
}

int model_to_fp8(struct model *m, struct err *e)
{
    int32_t n_kept = 0;
    int rc = 0;
    for (int32_t l = 0; !rc && l < m->desc.n_layer; l++)
        rc = layer_to_fp8(m, l, &n_kept, e);
    if (n_kept)
        log_line(LOG_WARN, "matrices stay as they are", "tensors=%d reason=\"FP8 takes 128 columns at a time\"",
                 n_kept);
    name_quant(m);
    return rc;
}

int model_make_weights(struct model *m, int32_t n_thread, struct err *e)
{
    int32_t n = m->st ? model_count_activation_scales(m->st) : 0;
    if (n)
        log_line(LOG_INFO, "activation scales ignored", "tensors=%d reason=\"activations are not quantised by them\"",
                 n);
    return fp8_fill(&m->fp8, n_thread, e);
}

void model_close(struct model *m)
{
    tok_free(m->tok);
    for (int32_t l = 0; m->w.layer && l < m->desc.n_layer; l++)
        mem_free(m->w.layer[l].expert);
    mem_free(m->w.layer);
    mem_free(m->norms);
    mem_free(m->short_freq);
    mem_free(m->chat_template);
    mem_free(m->architecture);
    source_close(&m->source);
    fp8_free(&m->fp8);
    gguf_close(m->gguf);
    st_close(m->st);
    *m = (struct model){0};
}
