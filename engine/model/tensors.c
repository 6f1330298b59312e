/* The tensors of a model, found by the names that its kind of file gives them. */
#include <stdio.h>
#include <string.h>

#include "gguf.h"
#include "mem.h"
#include "model_impl.h"
#include "safetensors.h"

struct found {
    struct tensor t;
    char type_name[16]; /* for messages */
};

/* Any file's tensor as a matrix; false: there is none of that name. */
static bool find(const struct model *m, const char *name, struct found *out)
{
    if (m->gguf) {
        const struct gguf_tensor *t = gguf_tensor_find(m->gguf, name);
        if (t) {
            out->t = (struct tensor){.data = t->data, .type = t->type, .n_row = t->n_row, .n_col = t->dim[0]};
            snprintf(out->type_name, sizeof out->type_name, "%d", t->type);
        }
        return t != NULL;
    }
    const struct st_tensor *t = st_find(m->st, name);
    if (t) {
        int64_t n_col = t->n_dim ? t->dim[t->n_dim - 1] : 1, n_row = 1;
        for (int i = 0; i + 1 < t->n_dim; i++)
            n_row *= t->dim[i];
        out->t = (struct tensor){.data = t->data, .type = t->type, .n_row = n_row, .n_col = n_col};
        snprintf(out->type_name, sizeof out->type_name, "%s", t->type_name);
    }
    return t != NULL;
}

static int take(struct model *m, const char *name, int64_t n_row, int64_t n_col, bool required, struct tensor *out,
                struct err *e)
{
    struct found f;
    if (!find(m, name, &f))
        return required ? err_set(e, ERR_FORMAT, "tensor %s is missing", name) : 0;
    if (!dtype_info(f.t.type))
        return err_set(e, ERR_FORMAT, "tensor %s: type %s is not supported (%s are)", name, f.type_name,
                       m->gguf ? "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, MXFP4" : "F32, F16, BF16");
    if (f.t.n_col != n_col || f.t.n_row != n_row)
        return err_set(e, ERR_FORMAT, "tensor %s: %lld x %lld, expected %lld x %lld", name, (long long)f.t.n_row,
                       (long long)f.t.n_col, (long long)n_row, (long long)n_col);
    *out = f.t;
    m->info.n_param += (uint64_t)n_row * (uint64_t)n_col;
    return 0;
}

static int take_layer(struct model *m, int32_t l, struct err *e)
{
    const struct model_desc *d = &m->desc;
    struct layer_weights *w = &m->w.layer[l];
    int64_t n_q = (int64_t)d->n_head * d->head_dim, n_kv = (int64_t)d->n_head_kv * d->head_dim;
    const struct {
        const char *gguf, *hf;
        int64_t n_row, n_col;
        bool required;
        struct tensor *to;
    } want[] = {
        {"attn_norm.weight", "input_layernorm.weight", 1, d->n_embd, true, &w->attn_norm},
        {"ffn_norm.weight", "post_attention_layernorm.weight", 1, d->n_embd, true, &w->ffn_norm},
        {"attn_q.weight", "self_attn.q_proj.weight", n_q, d->n_embd, true, &w->wq},
        {"attn_k.weight", "self_attn.k_proj.weight", n_kv, d->n_embd, true, &w->wk},
        {"attn_v.weight", "self_attn.v_proj.weight", n_kv, d->n_embd, true, &w->wv},
        {"attn_q.bias", "self_attn.q_proj.bias", 1, n_q, false, &w->bq},
        {"attn_k.bias", "self_attn.k_proj.bias", 1, n_kv, false, &w->bk},
        {"attn_v.bias", "self_attn.v_proj.bias", 1, n_kv, false, &w->bv},
        {"attn_q_norm.weight", "self_attn.q_norm.weight", 1, d->head_dim, d->flags & MODEL_QK_NORM, &w->q_norm},
        {"attn_k_norm.weight", "self_attn.k_norm.weight", 1, d->head_dim, d->flags & MODEL_QK_NORM, &w->k_norm},
        {"attn_output.weight", "self_attn.o_proj.weight", d->n_embd, n_q, true, &w->wo},
        {"ffn_gate.weight", "mlp.gate_proj.weight", d->n_ff, d->n_embd, true, &w->gate},
        {"ffn_up.weight", "mlp.up_proj.weight", d->n_ff, d->n_embd, true, &w->up},
        {"ffn_down.weight", "mlp.down_proj.weight", d->n_embd, d->n_ff, true, &w->down},
    };
    static const char *const not_computed[] = {"attn_output.bias",    "self_attn.o_proj.bias", "ffn_up.bias",
                                               "mlp.up_proj.bias",    "ffn_down.bias",         "mlp.down_proj.bias",
                                               "ffn_gate_inp.weight", "mlp.gate.weight"};
    char name[96];
    struct found f;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        snprintf(name, sizeof name, m->gguf ? "blk.%d.%s" : "model.layers.%d.%s", l,
                 m->gguf ? want[i].gguf : want[i].hf);
        int rc = take(m, name, want[i].n_row, want[i].n_col, want[i].required, want[i].to, e);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < sizeof not_computed / sizeof *not_computed; i++) {
        snprintf(name, sizeof name, m->gguf ? "blk.%d.%s" : "model.layers.%d.%s", l, not_computed[i]);
        if (find(m, name, &f))
            return err_set(e, ERR_FORMAT, "tensor %s: Galley does not compute with it", name);
    }
    return 0;
}

int model_take_tensors(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    const char *embd = m->gguf ? "token_embd.weight" : "model.embed_tokens.weight";
    const char *first_norm = m->gguf ? "blk.0.attn_q_norm.weight" : "model.layers.0.self_attn.q_norm.weight";
    int64_t n_tensor = m->gguf ? m->gguf->n_tensor : m->st->n_tensor;
    struct found f;
    if (!find(m, embd, &f))
        return err_set(e, ERR_FORMAT, "tensor %s is missing", embd);
    if (f.t.n_row < 1 || f.t.n_row > 1 << 22)
        return err_set(e, ERR_FORMAT, "tensor %s: %lld rows", embd, (long long)f.t.n_row);
    d->n_vocab = (int32_t)f.t.n_row;
    if (find(m, first_norm, &f))
        d->flags |= MODEL_QK_NORM;
    /* Every layer needs tensors of its own, so a hostile count of layers costs no memory. */
    if (d->n_layer > n_tensor)
        return err_set(e, ERR_FORMAT, "%s: %d layers, but there are only %lld tensors", m->architecture, d->n_layer,
                       (long long)n_tensor);
    m->w.layer = mem_calloc((size_t)d->n_layer, sizeof *m->w.layer);
    if (!m->w.layer)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = take(m, embd, d->n_vocab, d->n_embd, true, &m->w.tok_embd, e);
    if (!rc)
        rc = take(m, m->gguf ? "output_norm.weight" : "model.norm.weight", 1, d->n_embd, true, &m->w.out_norm, e);
    if (!rc && !m->is_tied)
        rc = take(m, m->gguf ? "output.weight" : "lm_head.weight", d->n_vocab, d->n_embd, !m->gguf, &m->w.out, e);
    for (int32_t l = 0; !rc && l < d->n_layer; l++)
        rc = take_layer(m, l, e);
    return rc;
}
