/* The tensors of a model, found by the names that its kind of file gives them. */
#include <stdio.h>
#include <string.h>

#include "gguf.h"
#include "mem.h"
#include "model_impl.h"
#include "safetensors.h"

struct found {
    struct tensor t;
    int64_t n_each;     /* rows of one matrix, where a tensor holds several; else all */
    char type_name[16]; /* for messages */
    bool coded;         /* F8_E4M3, whose scales are another tensor */
};

/* Any file's tensor as a matrix; false: there is none of that name. */
static bool find(const struct model *m, const char *name, struct found *out)
{
    if (m->gguf) {
        const struct gguf_tensor *t = gguf_tensor_find(m->gguf, name);
        if (t) {
            out->t = (struct tensor){.data = t->data, .type = t->type, .n_row = t->n_row, .n_col = t->dim[0]};
            out->n_each = t->dim[1];
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
        out->n_each = t->n_dim > 1 ? t->dim[t->n_dim - 2] : 1;
        snprintf(out->type_name, sizeof out->type_name, "%s", t->type_name);
        out->coded = !strcmp(t->type_name, "F8_E4M3") && t->n_dim == 2;
    }
    return t != NULL;
}

static int join_codes(struct model *m, const char *name, const struct tensor *codes, struct tensor *out, struct err *e)
{
    struct fp8_scales scale;
    int rc = model_find_scales(m->st, name, codes, &scale, e);
    return rc ? rc : fp8_add(&m->fp8, name, codes, &scale, out, e);
}

/* n matrices of one shape in one tensor. */
static int take_several(struct model *m, const char *name, int64_t n, int64_t n_row, int64_t n_col, bool required,
                        struct tensor *out, struct err *e)
{
    struct found f = {0};
    if (!find(m, name, &f))
        return required ? err_set(e, ERR_FORMAT, "tensor %s is missing", name) : 0;
    if (!dtype_info(f.t.type) && !f.coded)
        return err_set(e, ERR_FORMAT, "tensor %s: type %s is not supported (%s are)", name, f.type_name,
                       m->gguf ? "F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, MXFP4"
                               : "F32, F16, BF16 and matrices of F8_E4M3");
    if (f.t.n_col != n_col || f.t.n_row != n * n_row || (n > 1 && f.n_each != n_row))
        return err_set(e, ERR_FORMAT, "tensor %s: %lld x %lld, expected %lld x %lld", name, (long long)f.t.n_row,
                       (long long)f.t.n_col, (long long)(n * n_row), (long long)n_col);
    int rc = 0;
    if (f.coded)
        rc = join_codes(m, name, &f.t, out, e);
    else
        *out = f.t;
    m->info.n_param += (uint64_t)f.t.n_row * (uint64_t)n_col;
    m->weight_bytes += rc ? 0 : (double)dtype_row_bytes(out->type, n_col) * (double)f.t.n_row;
    return rc;
}

static int take(struct model *m, const char *name, int64_t n_row, int64_t n_col, bool required, struct tensor *out,
                struct err *e)
{
    return take_several(m, name, 1, n_row, n_col, required, out, e);
}

/* The next n_row rows of a tensor that holds several matrices. */
static struct tensor cut(struct tensor *rest, int64_t n_row)
{
    struct tensor t = *rest;
    t.n_row = n_row;
    rest->n_row -= n_row;
    rest->data = (const char *)rest->data + dtype_row_bytes(t.type, t.n_col) * (size_t)n_row;
    return t;
}

/* ---- Names ---- */

enum { MAX_NAME = 192, MAX_PART = 128 };

/* "blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight" */
static const char *layer_name(const struct model *m, int32_t l, const char *gguf, const char *hf, char buf[MAX_NAME])
{
    snprintf(buf, MAX_NAME, m->gguf ? "blk.%d.%s" : "model.layers.%d.%s", l, m->gguf ? gguf : hf);
    return buf;
}

static bool layer_has(const struct model *m, int32_t l, const char *gguf, const char *hf)
{
    char name[MAX_NAME];
    struct found f;
    return find(m, layer_name(m, l, gguf, hf, name), &f);
}

static int take_of_layer(struct model *m, int32_t l, const char *gguf, const char *hf, int64_t n_row, int64_t n_col,
                         bool required, struct tensor *out, struct err *e)
{
    char name[MAX_NAME];
    return take(m, layer_name(m, l, gguf, hf, name), n_row, n_col, required, out, e);
}

/* ---- Norms ---- */

/* Those whose files hold them less 1 are replaced by a copy, for which model_take_tensors has made room at *at. */
static void restore_norm(const struct model *m, struct tensor *t, float **at)
{
    if (m->gguf || !(m->family->traits & FAMILY_NORM_LESS_1) || !t->data)
        return;
    dtype_to_f32(t->type, t->data, *at, t->n_col);
    for (int64_t i = 0; i < t->n_col; i++)
        (*at)[i] += 1;
    t->data = *at;
    t->type = DT_F32;
    *at += t->n_col;
}

static size_t norms_size(const struct model_desc *d)
{
    return (size_t)d->n_layer * (size_t)(4 * d->n_embd + 2 * d->head_dim) + (size_t)d->n_embd;
}

static int take_norms(struct model *m, int32_t l, float **at, struct err *e)
{
    const struct model_desc *d = &m->desc;
    struct layer_weights *w = &m->w.layer[l];
    bool pre = !(m->family->traits & FAMILY_NO_PRE_NORM), post = m->family->traits & FAMILY_POST_NORM;
    int32_t q_len = d->head_dim, k_len = d->head_dim;
    if (d->flags & MODEL_QK_NORM_ALL) {
        q_len = d->n_head * d->head_dim;
        k_len = d->n_head_kv * d->head_dim;
    }
    bool qk = d->flags & (MODEL_QK_NORM | MODEL_QK_NORM_ALL);
    const struct {
        const char *gguf, *hf;
        int32_t n;
        bool wanted;
        struct tensor *to;
    } want[] = {
        {"attn_norm.weight", "input_layernorm.weight", d->n_embd, pre, &w->attn_norm},
        {"post_attention_norm.weight", "post_attention_layernorm.weight", d->n_embd, post, &w->post_attn_norm},
        {"ffn_norm.weight", post ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight", d->n_embd,
         pre, &w->ffn_norm},
        {"post_ffw_norm.weight", "post_feedforward_layernorm.weight", d->n_embd, post, &w->post_ffn_norm},
        {"attn_q_norm.weight", "self_attn.q_norm.weight", q_len, qk, &w->q_norm},
        {"attn_k_norm.weight", "self_attn.k_norm.weight", k_len, qk, &w->k_norm},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        if (!want[i].wanted)
            continue;
        int rc = take_of_layer(m, l, want[i].gguf, want[i].hf, 1, want[i].n, true, want[i].to, e);
        if (rc)
            return rc;
        restore_norm(m, want[i].to, at);
    }
    return 0;
}

/* ---- Attention and feed-forward ---- */

static int take_attention(struct model *m, int32_t l, struct err *e)
{
    const struct model_desc *d = &m->desc;
    struct layer_weights *w = &m->w.layer[l];
    int64_t n_q = (int64_t)d->n_head * d->head_dim, n_kv = (int64_t)d->n_head_kv * d->head_dim;
    struct tensor all;
    int rc = take_of_layer(m, l, "attn_output.weight", "self_attn.o_proj.weight", d->n_embd, n_q, true, &w->wo, e);
    if (rc)
        return rc;
    if (m->family->traits & FAMILY_FUSED) {
        rc = take_of_layer(m, l, "attn_qkv.weight", "self_attn.qkv_proj.weight", n_q + 2 * n_kv, d->n_embd, true, &all,
                           e);
        if (rc)
            return rc;
        w->wq = cut(&all, n_q);
        w->wk = cut(&all, n_kv);
        w->wv = cut(&all, n_kv);
        return 0;
    }
    const struct {
        const char *gguf, *hf;
        int64_t n_row, n_col;
        bool required;
        struct tensor *to;
    } want[] = {
        {"attn_q.weight", "self_attn.q_proj.weight", n_q, d->n_embd, true, &w->wq},
        {"attn_k.weight", "self_attn.k_proj.weight", n_kv, d->n_embd, true, &w->wk},
        {"attn_v.weight", "self_attn.v_proj.weight", n_kv, d->n_embd, true, &w->wv},
        {"attn_q.bias", "self_attn.q_proj.bias", 1, n_q, false, &w->bq},
        {"attn_k.bias", "self_attn.k_proj.bias", 1, n_kv, false, &w->bk},
        {"attn_v.bias", "self_attn.v_proj.bias", 1, n_kv, false, &w->bv},
    };
    for (size_t i = 0; !rc && i < sizeof want / sizeof *want; i++)
        rc = take_of_layer(m, l, want[i].gguf, want[i].hf, want[i].n_row, want[i].n_col, want[i].required, want[i].to,
                           e);
    return rc;
}

static int take_feed_forward(struct model *m, int32_t l, struct err *e)
{
    const struct model_desc *d = &m->desc;
    struct layer_weights *w = &m->w.layer[l];
    struct tensor both;
    int rc;
    if (m->family->traits & FAMILY_FUSED) {
        rc = take_of_layer(m, l, "ffn_up.weight", "mlp.gate_up_proj.weight", 2 * (int64_t)d->n_ff, d->n_embd, true,
                           &both, e);
        if (!rc) {
            w->gate = cut(&both, d->n_ff);
            w->up = cut(&both, d->n_ff);
        }
    } else {
        rc = take_of_layer(m, l, "ffn_gate.weight", "mlp.gate_proj.weight", d->n_ff, d->n_embd, true, &w->gate, e);
        if (!rc)
            rc = take_of_layer(m, l, "ffn_up.weight", "mlp.up_proj.weight", d->n_ff, d->n_embd, true, &w->up, e);
    }
    return rc ? rc
              : take_of_layer(m, l, "ffn_down.weight", "mlp.down_proj.weight", d->n_embd, d->n_ff, true, &w->down, e);
}

/* ---- Experts ---- */

/* The two ways in which directories name them. */
static const struct {
    const char *router, *expert; /* of a layer; of an expert, by number and name of its matrix */
    const char *gate, *up, *down;
} expert_names[] = {
    {"block_sparse_moe.gate.weight", "block_sparse_moe.experts.%d.%s.weight", "w1", "w3", "w2"}, /* Mixtral */
    {"mlp.gate.weight", "mlp.experts.%d.%s.weight", "gate_proj", "up_proj", "down_proj"},        /* Qwen */
};
static const char router_name[] = "ffn_gate_inp.weight";

/* Which of the ways layer l has; -1: no experts. */
static int find_router(const struct model *m, int32_t l)
{
    for (int i = 0; i < (int)(sizeof expert_names / sizeof *expert_names); i++)
        if (layer_has(m, l, router_name, expert_names[i].router))
            return i;
    return -1;
}

static int take_expert_hf(struct model *m, int32_t l, int way, int32_t x, struct err *e)
{
    const struct model_desc *d = &m->desc;
    struct expert_weights *w = &m->w.layer[l].expert[x];
    const struct {
        const char *name;
        int64_t n_row, n_col;
        struct tensor *to;
    } want[] = {
        {expert_names[way].gate, d->n_ff_expert, d->n_embd, &w->gate},
        {expert_names[way].up, d->n_ff_expert, d->n_embd, &w->up},
        {expert_names[way].down, d->n_embd, d->n_ff_expert, &w->down},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof want / sizeof *want; i++) {
        char name[MAX_PART];
        snprintf(name, sizeof name, expert_names[way].expert, x, want[i].name);
        rc = take_of_layer(m, l, "", name, want[i].n_row, want[i].n_col, true, want[i].to, e);
    }
    return rc;
}

/* GGUF keeps the experts of a layer in three tensors. */
static int take_experts_gguf(struct model *m, int32_t l, struct err *e)
{
    const struct model_desc *d = &m->desc;
    struct layer_weights *w = &m->w.layer[l];
    struct tensor gate, up, down;
    char name[MAX_NAME];
    int rc = take_several(m, layer_name(m, l, "ffn_gate_exps.weight", "", name), d->n_expert, d->n_ff_expert, d->n_embd,
                          true, &gate, e);
    if (!rc)
        rc = take_several(m, layer_name(m, l, "ffn_up_exps.weight", "", name), d->n_expert, d->n_ff_expert, d->n_embd,
                          true, &up, e);
    if (!rc)
        rc = take_several(m, layer_name(m, l, "ffn_down_exps.weight", "", name), d->n_expert, d->n_embd, d->n_ff_expert,
                          true, &down, e);
    for (int32_t x = 0; !rc && x < d->n_expert; x++)
        w->expert[x] = (struct expert_weights){
            .gate = cut(&gate, d->n_ff_expert), .up = cut(&up, d->n_ff_expert), .down = cut(&down, d->n_embd)};
    return rc;
}

static int take_experts(struct model *m, int32_t l, int way, struct err *e)
{
    const struct model_desc *d = &m->desc;
    struct layer_weights *w = &m->w.layer[l];
    w->expert = mem_calloc((size_t)d->n_expert, sizeof *w->expert);
    if (!w->expert)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = take_of_layer(m, l, router_name, expert_names[way].router, d->n_expert, d->n_embd, true, &w->router, e);
    if (!rc && m->gguf)
        return take_experts_gguf(m, l, e);
    for (int32_t x = 0; !rc && x < d->n_expert; x++)
        rc = take_expert_hf(m, l, way, x, e);
    return rc;
}

/* ---- Layers ---- */

static int refuse_others(const struct model *m, int32_t l, struct err *e)
{
    static const char *const not_computed[] = {
        "attn_output.bias",      "self_attn.o_proj.bias",
        "attn_qkv.bias",         "self_attn.qkv_proj.bias",
        "ffn_up.bias",           "mlp.up_proj.bias",
        "ffn_down.bias",         "mlp.down_proj.bias",
        "ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight",
        "ffn_gate_exps.bias",    "exp_probs_b.bias",
    };
    char name[MAX_NAME];
    struct found f;
    for (size_t i = 0; i < sizeof not_computed / sizeof *not_computed; i++)
        if (find(m, layer_name(m, l, not_computed[i], not_computed[i], name), &f))
            return err_set(e, ERR_FORMAT, "tensor %s: Galley does not compute with it", name);
    return 0;
}

static int take_layer(struct model *m, int32_t l, float **norms, struct err *e)
{
    char name[MAX_NAME];
    int way = find_router(m, l);
    if (way >= 0 && !m->desc.n_expert)
        return err_set(e, ERR_FORMAT, "tensor %s: a router, where there is no number of experts",
                       layer_name(m, l, router_name, expert_names[way].router, name));
    int rc = take_norms(m, l, norms, e);
    if (!rc)
        rc = take_attention(m, l, e);
    if (!rc && way < 0 && m->desc.n_expert && !layer_has(m, l, "ffn_gate.weight", "mlp.gate_proj.weight"))
        rc = err_set(e, ERR_FORMAT, "tensor %s is missing",
                     layer_name(m, l, router_name, expert_names[strcmp(m->architecture, "mixtral") != 0].router, name));
    if (!rc)
        rc = way >= 0 ? take_experts(m, l, way, e) : take_feed_forward(m, l, e);
    return rc ? rc : refuse_others(m, l, e);
}

static int take_layers(struct model *m, float **norms, struct err *e)
{
    struct model_desc *d = &m->desc;
    if (!(d->flags & MODEL_QK_NORM_ALL) && layer_has(m, 0, "attn_q_norm.weight", "self_attn.q_norm.weight"))
        d->flags |= MODEL_QK_NORM;
    m->w.layer = mem_calloc((size_t)d->n_layer, sizeof *m->w.layer);
    if (!m->w.layer)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = 0;
    for (int32_t l = 0; !rc && l < d->n_layer; l++)
        rc = take_layer(m, l, norms, e);
    return rc;
}

int model_take_tensors(struct model *m, struct err *e)
{
    struct model_desc *d = &m->desc;
    const char *embd = m->gguf ? "token_embd.weight" : "model.embed_tokens.weight";
    int64_t n_tensor = m->gguf ? m->gguf->n_tensor : m->st->n_tensor;
    struct found f;
    /* Every layer needs tensors of its own, so a hostile count of layers costs no memory. */
    if (d->n_layer > n_tensor)
        return err_set(e, ERR_FORMAT, "%s: %d layers, but there are only %lld tensors", m->architecture, d->n_layer,
                       (long long)n_tensor);
    if (!find(m, embd, &f))
        return err_set(e, ERR_FORMAT, "tensor %s is missing", embd);
    if (f.t.n_row < 1 || f.t.n_row > 1 << 22)
        return err_set(e, ERR_FORMAT, "tensor %s: %lld rows", embd, (long long)f.t.n_row);
    d->n_vocab = (int32_t)f.t.n_row;
    int rc = take(m, embd, d->n_vocab, d->n_embd, true, &m->w.tok_embd, e);
    if (!rc)
        rc = take(m, m->gguf ? "output_norm.weight" : "model.norm.weight", 1, d->n_embd, true, &m->w.out_norm, e);
    if (!rc && !m->is_tied)
        rc = take(m, m->gguf ? "output.weight" : "lm_head.weight", d->n_vocab, d->n_embd, m->needs_head, &m->w.out, e);
    if (rc)
        return rc;
    if (!m->gguf && m->family->traits & FAMILY_NORM_LESS_1) {
        m->norms = mem_calloc(norms_size(d), sizeof *m->norms);
        if (!m->norms)
            return err_set(e, ERR_NOMEM, "out of memory");
    }
    float *norms = m->norms;
    restore_norm(m, &m->w.out_norm, &norms);
    return take_layers(m, &norms, e);
}
