/* The oracle: every feature of the plan in scalar code, slow and obvious. Weights are f32, sums are f64. */
#ifndef GALLEY_REF_H
#define GALLEY_REF_H

#include "backend.h"
#include "readout.h"

struct ref_ffn { /* a feed-forward, or one expert's */
    float *gate, *up, *down;
};

struct ref_layer { /* all f32, file layout; NULL: absent */
    float *attn_norm, *post_attn_norm, *ffn_norm, *post_ffn_norm, *wq, *wk, *wv, *bq, *bk, *bv, *q_norm, *k_norm, *wo;
    struct ref_ffn ffn;
    float *router;
    struct ref_ffn *expert; /* [n_expert] with a router */
};

struct bmodel { /* owner: its backend's caller */
    struct model_desc d;
    struct plan_limits limits;
    float *tok_embd, *out_norm, *out; /* out == tok_embd when tied */
    struct ref_layer *layer;
    size_t weight_bytes;

    struct kv_config kv;
    size_t k_row, v_row; /* bytes of one slot in one layer */
    char *k, *v;         /* [n_layer][n_slot][row] as stored */
    uint16_t *plane;     /* [n_slot][n_embd] unit-length final hidden states in f16, with hidden_plane */
    float *bank;         /* [n_bank][n_embd] */
    char *staging;       /* sources of all moves of a plan */
    float *x, *tmp;      /* [n_row][n_embd]; scratch */
    float *score;        /* [n_slot] */
    float *logits;       /* [n_vocab] */
    struct readout_ws readout;
    const struct step_plan *plan; /* from submit to wait */
};

/* forward.c: runs the plan's moves and rows; x then holds each row's residual stream after its last layer. */
void ref_forward(struct bmodel *m, const struct step_plan *p);
/* out = norm(x) * weight over n elements; may be in place. */
void ref_rms_norm(const float *x, const float *weight, float *out, int32_t n, float eps);
/* out[r] = sum over c of w[r][c] * x[c] (+ bias[r]). */
void ref_matvec(const float *w, const float *bias, const float *x, float *out, int32_t n_row, int32_t n_col);
/* cap * tanh(x / cap), x without a cap. */
float ref_soft_cap(float x, float cap);
/* out[n_embd] = down(activation(gate(x)) * up(x)); tmp has 2 n_ff floats. */
void ref_gated(const struct model_desc *d, const struct ref_ffn *w, const float *x, int32_t n_ff, float *tmp,
               float *out);

/* moe.c: the same of the experts that x is routed to; tmp has n_expert + n_embd + 2 n_ff_expert floats. */
void ref_experts(const struct model_desc *d, const struct ref_layer *w, const float *x, float *tmp, float *out);

#endif
