/* The back-end contract: model-forward level, about nine functions. The engine is its only caller, from one thread at a
 * time (load may run on another before the first submit). A back end owns weights, KV memory and its threads; a plan is
 * lent to it from submit to wait. Architecture is data (struct model_desc), never a class. */
#ifndef GALLEY_BACKEND_H
#define GALLEY_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "err.h"
#include "plan.h"

enum { MODEL_MAX_HEAD_DIM = 512, MODEL_MAX_LAYER = 1024, MODEL_MAX_EXPERT = 1024, MODEL_MAX_EXPERT_USED = 64 };

enum model_flag {
    MODEL_NEOX_ROPE = 1 << 0,    /* rotate (x[i], x[i + d/2]); else adjacent pairs (x[2i], x[2i + 1]) */
    MODEL_QK_NORM = 1 << 1,      /* RMS norm of each q and k head before RoPE (Qwen3, Gemma 3) */
    MODEL_QK_NORM_ALL = 1 << 2,  /* RMS norm of all q heads together, and of all k heads, before RoPE (OLMo 2) */
    MODEL_GELU = 1 << 3,         /* GELU in its tanh form gates the feed-forward (Gemma); else SiLU */
    MODEL_EXPERT_SUM_1 = 1 << 4, /* the weights of a token's experts are scaled to the sum 1 (Mixtral) */
};

struct model_desc {
    int32_t n_vocab, n_embd, n_layer, n_head, n_head_kv, head_dim, n_ff, n_ctx_train;
    int32_t n_expert, n_expert_used, n_ff_expert; /* of layers with a router; 0: none has one */
    int32_t rope_dim;                             /* leading elements of a head that rotate */
    uint32_t flags;                               /* enum model_flag */
    float rms_eps, attn_scale;                    /* attn_scale: 1 / sqrt(head_dim) unless the file says otherwise */
    float attn_softcap, logit_softcap;            /* x becomes cap * tanh(x / cap); 0: none */
    float embd_scale;                             /* multiplies token embeddings; 1 */
    float residual_scale;                         /* multiplies what a layer's two halves add to the stream; 1 */
    float logit_scale;                            /* multiplies logits, before their cap; 1 */

    int32_t sliding_window;                      /* keys further back than this - 1 positions are unseen; 0: none */
    float rope_inv_freq[MODEL_MAX_HEAD_DIM / 2]; /* angle = position * rope_inv_freq[i]; scaling already applied */
    float rope_mscale;                           /* multiplies cos and sin; 1 without YaRN */

    /* Layers may be of two kinds (Gemma, SmolLM3): where layer_kind is 1, these stand for the three above. Frequencies
     * of 0 rotate nothing. */
    uint8_t layer_kind[MODEL_MAX_LAYER];
    int32_t sliding_window_1;
    float rope_inv_freq_1[MODEL_MAX_HEAD_DIM / 2];
    float rope_mscale_1;
};

static inline int32_t model_window(const struct model_desc *d, int kind)
{
    return kind ? d->sliding_window_1 : d->sliding_window;
}

static inline const float *model_inv_freq(const struct model_desc *d, int kind)
{
    return kind ? d->rope_inv_freq_1 : d->rope_inv_freq;
}

static inline float model_mscale(const struct model_desc *d, int kind)
{
    return kind ? d->rope_mscale_1 : d->rope_mscale;
}

struct tensor {       /* a matrix in file layout: n_row rows of n_col elements, row-major; vectors have n_row 1 */
    const void *data; /* NULL: the model has no such tensor. Borrowed: valid until load returns */
    int32_t type;     /* enum dtype */
    int64_t n_row, n_col;
};

struct expert_weights {
    struct tensor gate, up; /* [n_ff_expert, n_embd] */
    struct tensor down;     /* [n_embd, n_ff_expert] */
};

struct layer_weights {
    struct tensor attn_norm, ffn_norm;           /* [n_embd], optional: of what goes into attention and feed-forward */
    struct tensor post_attn_norm, post_ffn_norm; /* [n_embd], optional: of what comes out, before it is added */
    struct tensor wq;                            /* [n_head * head_dim, n_embd] */
    struct tensor wk, wv;                        /* [n_head_kv * head_dim, n_embd] */
    struct tensor bq, bk, bv;                    /* biases, optional */
    struct tensor q_norm, k_norm;                /* [head_dim] with MODEL_QK_NORM, as long as all heads with .._ALL */
    struct tensor wo;                            /* [n_embd, n_head * head_dim] */
    struct tensor gate, up;                      /* [n_ff, n_embd] */
    struct tensor down;                          /* [n_embd, n_ff] */
    struct tensor router;          /* [n_expert, n_embd], optional: then experts stand for gate, up and down */
    struct expert_weights *expert; /* [n_expert] with a router */
};

struct weight_identity { /* of a model file: where all agree, so do the weights, as far as a look can tell */
    uint64_t size_bytes;
    int64_t modified_ns;
    uint64_t head_hash;   /* of everything before the tensors */
    uint64_t sample_hash; /* of pages spread over the tensors */
};

/* The mapped file that tensors lie in: lets a back end read ahead of what it packs, hold one copy of the weights
 * instead of two, and know the file again at the next start. Used by load alone, on its caller's thread. */
struct weight_source {
    void *arg;
    void (*want)(void *arg, const void *data, size_t bytes); /* will be read soon */
    void (*done)(void *arg, const void *data, size_t bytes); /* will not be read any more */
    void (*identify)(void *arg, struct weight_identity *out);
    const char *name; /* the model's, fit for a file's */
};

struct model_weights {
    struct tensor tok_embd;             /* [n_vocab, n_embd] */
    struct tensor out_norm;             /* [n_embd] */
    struct tensor out;                  /* [n_vocab, n_embd]; data NULL: tied to tok_embd */
    struct layer_weights *layer;        /* [n_layer] */
    const struct weight_source *source; /* NULL: the tensors are memory like any other */
};

struct kv_config {
    int32_t block_len; /* slots a block, a power of two */
    int32_t n_block;
    int32_t k_type, v_type; /* DT_F32, DT_F16, DT_BF16 or DT_Q8_0 */
    int32_t hidden_plane;   /* 1: keep each slot's final hidden state at unit length, in f16, for READ_CONTRAST */
    int32_t n_bank;         /* rows of the vector bank */
};

enum backend_pin {           /* what a worker thread of the cpu is kept to */
                   PIN_NODE, /* its NUMA node, where there are several: weights then lie near those who read them */
                   PIN_CORE, /* a core of its own; two processes must then be given cores of their own as well */
                   PIN_OFF
};

struct backend_options {
    int32_t n_thread; /* 0: one for each physical core available to the process. cuda: they load weights, no more */
    enum backend_pin pin;
    const char *root;          /* tests: where /sys and /proc are looked for; NULL: "" */
    struct plan_limits limits; /* the largest plan that will be submitted: scratch is sized by it, at kv_create */
    const char *repack_cache;  /* folder for packed weights, which load reads and writes; NULL: none */
    int32_t tensor_parallel;   /* devices that share each model; 0: one. ref and cpu have one alone */
    bool deterministic;        /* cuda: bitwise the same results in any batch, at some cost; ref and cpu always are */
};

struct backend_stats {
    size_t weight_bytes, kv_bytes, scratch_bytes;
    int32_t n_thread;
    bool weights_cached; /* they came from the repack cache */
    const char *kv_type; /* what the KV cache really holds, where that is not what was asked for; NULL: that */
    char device[128];    /* for a person: "cpu avx512-vnni, 2 threads" */
};

struct backend; /* a device; opaque */
struct bmodel;  /* a model loaded on it (target, draft); opaque */

/* Called from load: done and total bytes. Returns nonzero to stop loading (-ERR_CANCELED). */
typedef int (*load_progress)(void *arg, size_t done, size_t total);

struct backend_ops {
    const char *name;
    int (*usable)(struct err *e); /* 0, or why this machine cannot run it; cheap, opens nothing. NULL: all can */
    int (*open)(const struct backend_options *opt, struct backend **out, struct err *e);
    int (*load)(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
                void *arg, struct bmodel **out, struct err *e);
    /* Bytes that kv_create would take for this configuration, scratch included. */
    size_t (*kv_bytes)(const struct bmodel *m, const struct kv_config *kv);
    /* Bytes free for kv_create now, in memory that is the device's own. NULL: it uses the machine's. */
    size_t (*kv_available)(const struct bmodel *m);
    int (*kv_create)(struct bmodel *m, const struct kv_config *kv, struct err *e);
    /* Starts a step; one at a time for each model. The plan passed plan_check. */
    int (*submit)(struct bmodel *m, const struct step_plan *p, struct err *e);
    /* Blocks until the step is done and `r` is written. An error is sticky: the model is lost. */
    int (*wait)(struct bmodel *m, struct step_result *r, struct err *e);
    void (*stats)(const struct bmodel *m, struct backend_stats *s);
    void (*unload)(struct bmodel *m); /* NULL is legal, here and in close */
    void (*close)(struct backend *b);
};

/* The back ends of this binary, best first; NULL beyond the last. */
const struct backend_ops *backend_at(int32_t i);
/* "ref", "cpu", "cuda", or "auto" (the best this machine can use). NULL and an error that says why not, and what can be
 * used instead. */
const struct backend_ops *backend_find(const char *name, struct err *e);

#endif
