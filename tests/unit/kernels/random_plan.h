/* Random models, pools and well-formed plans with a printed seed, for property tests of back ends. */
#ifndef GALLEY_TEST_RANDOM_PLAN_H
#define GALLEY_TEST_RANDOM_PLAN_H

#include "backend.h"

struct rnd {
    uint64_t state;
};

uint64_t rnd_u64(struct rnd *r);
int32_t rnd_int(struct rnd *r, int32_t lo, int32_t hi); /* inclusive */
float rnd_normal(struct rnd *r);
/* GALLEY_SEED from the environment, else `fallback`; prints it. */
struct rnd rnd_begin(const char *what, uint64_t fallback);

struct tiny_model { /* owner: the test */
    struct model_desc d;
    struct model_weights w;
    void *mem, *more; /* of tiny_model_make, of tiny_model_extend */
    struct expert_weights *expert;
};
/* Random weights of the given type; flags as model_desc. Norms are f32. */
void tiny_model_make(struct tiny_model *t, struct rnd *r, int32_t n_layer, int32_t n_head, int32_t n_head_kv,
                     int32_t head_dim, int32_t n_embd, int32_t n_ff, int32_t n_vocab, uint32_t flags, int type,
                     int biases, int tied);
/* What only some families have. Layers 1, 4, 7, ... are of the other kind, the last one has no experts. */
struct tiny_features {
    uint32_t flags; /* MODEL_QK_NORM_ALL, MODEL_GELU, MODEL_EXPERT_SUM_1 */
    int window_1;   /* of the other kind of layers; 0: all are of one kind */
    int unrotated;  /* the other kind is not rotated; else it is at another base */
    int post_norms, no_pre_norms;
    float attn_softcap, logit_softcap, embd_scale, residual_scale, logit_scale; /* 0: none */
    int n_expert, n_expert_used, n_ff_expert;
    int up_f32;  /* `up` is of another type than `gate` */
    int mixed;   /* experts of a layer are of several types; so are up and gate of some, with up_f32 */
    int decided; /* tokens tell routers which experts they want: no rounding changes a choice */
};
/* As they come together in families. */
extern const struct tiny_features tiny_gemma, tiny_olmo, tiny_granite, tiny_mixtral;
void tiny_model_extend(struct tiny_model *t, struct rnd *r, const struct tiny_features *f, int type);
void tiny_model_free(struct tiny_model *t);

/* Room for anything the tests build. */
struct plan_limits test_limits(int32_t n_vocab);
struct law neutral_law(void);

/* One loaded model with its pool. */
struct rig {
    const struct backend_ops *ops;
    struct backend *b;
    struct bmodel *m;
    struct plan_env env;
    struct step_plan plan;
    struct step_result out;
    struct plan_limits limits;
};
void rig_open(struct rig *g, const struct backend_ops *ops, const struct tiny_model *t, const struct kv_config *kv,
              int n_thread);
/* The same with options of its own; those of the limits are filled in. */
void rig_open_with(struct rig *g, const struct backend_ops *ops, const struct tiny_model *t, const struct kv_config *kv,
                   struct backend_options opt);
void rig_close(struct rig *g);
/* plan_check, submit, wait; fails the test on error. */
void rig_step(struct rig *g);

/* A chain of n tokens on a fresh or continued sequence whose blocks are bt[]. Returns the plan's span. */
int rig_chain(struct rig *g, int32_t seq, int32_t ctx_len, const int32_t *tok, int32_t n, const int32_t *bt,
              int32_t n_bt);
/* Adds a HIDDEN-free logits readout of a row: LOGPROB RAW of the first n tokens of the vocabulary (n <= 128). */
int rig_read_logits(struct rig *g, int32_t row, int32_t n);

#endif
