/* Within the cuda back end's host part: a device, a model on it, the memory of its pool, and a step in the making.
 *
 *   cuda.c      the operations, over one device or over several
 *   devices.c   what this machine has, and in what words it cannot be used
 *   ranks.c     a thread for each of several devices; parallel.c: the operations over them
 *   shard.c     what part of a model a rank has
 *   model.c     weights: what they become in one device allocation; upload.c: packed by threads, and on their way to it
 *   pool.c      KV cache and scratch: one device allocation, planned from the limits; nothing is allocated after it
 *   step.c      a plan's arrays and the lists made from it, in one upload; results back
 *   forward.c   the kernels of a pass, in order; feed_forward.c: those of a layer's second half
 *   exchange.c  what ranks send each other in it
 *   graphs.c    most of them recorded at start, for the steps that come often
 *   blas.c      products of many rows by a library, where it is faster */
#ifndef GALLEY_CUDA_H
#define GALLEY_CUDA_H

#include <stdatomic.h>
#include <stdbool.h>

#include "attention.h"
#include "backend.h"
#include "blas.h"
#include "comm.h"
#include "experts.h"
#include "gemm.h"
#include "kv.h"
#include "readouts.h"
#include "rows.h"
#include "runtime.h"
#include "shard.h"

/* dev.cuh's, for the host to step through arrays of them. */
struct bf16 {
    uint16_t u;
};
struct f16 {
    uint16_t u;
};

struct cuda_libraries { /* all borrowed */
    const struct cuda_api *runtime;
    const struct comm_api *comm;
    const struct blas_api *blas; /* NULL: none is looked for */
};

struct backend {                     /* one device; of several, the engine has that of rank 0 */
    const struct cuda_api *api;      /* borrowed */
    const struct blas_api *blas_api; /* borrowed; or NULL */
    struct backend_options opt;
    struct cuda_device device;
    struct CUstream_st *stream; /* owned */
    int32_t index, n_rank;      /* of the device, which is its rank, of so many */
    int32_t n_block;            /* blocks that keep the device busy */
    size_t upload_bytes;        /* of each of the two pinned buffers that weights go through */
    /* The rest: NULL where n_rank is 1. */
    const struct comm_api *comm_api; /* borrowed */
    _Atomic(struct comm *) comm;     /* owned; every rank's own */
    struct ranks *ranks;             /* rank 0's; owned */
    struct backend **rank;           /* rank 0's: [n_rank] itself and the others; owned */
};

/* A layer's feed-forward network, without a router. Or those of its experts that have weights of the same formats:
 * weights are then the first one's, and those of the others follow. */
struct cuda_ffn {
    struct gemm_weight gate_up;  /* both, where every network of the layer has them in one format */
    struct gemm_weight gate, up; /* else each */
    struct gemm_weight down;
    int32_t n_expert;
    const int32_t *expert; /* [n_expert] in bmodel.weights; NULL: all of the layer's */
};

struct cuda_layer { /* all in bmodel.weights; NULL, or weight.data NULL: the model has none */
    const float *attn_norm, *ffn_norm, *post_attn_norm, *post_ffn_norm, *bq, *bk, *bv, *q_norm, *k_norm;
    struct gemm_weight wq, wk, wv, wo, router;
    int32_t n_ffn;
    struct cuda_ffn *ffn; /* [n_ffn] owned; one, unless there are experts of different formats */
};

/* Bump allocation in one block of memory. With base NULL it only counts, so that one walk both plans and hands out. */
struct cuda_arena {
    char *base;
    size_t at;
};
void *cuda_arena_take(struct cuda_arena *a, size_t n, size_t size_bytes); /* n elements, aligned to 256 bytes */

enum { CUDA_KINDS = 2 }; /* of layers: model_desc.layer_kind */

/* What a step uploads. Pointers are to host staging; the device has the same bytes at the same offsets. */
struct cuda_lists {
    /* First what a graph refers to: where these begin depends on n_row and n_mix alone, and bt is the last of them. */
    struct attn_count *count;  /* [CUDA_KINDS] */
    int32_t *tok, *pos, *slot; /* [n_row] slot: pool slots that the rows write; -1: the row is padding */
    struct mix *mix;           /* part0 counts from the beginning of staging */
    int32_t *bt;
    /* The rest. Without comment: the plan's, as step_plan has them. */
    int32_t *ban, *list;
    struct mix_part *part;
    struct held_row *held;
    struct law *law;
    struct law_tok *law_tok;
    uint32_t *mask;
    int32_t *move_src, *move_dst; /* [n_move] of at most n_kvop * block_len */
    int32_t n_move;
    struct readout_work read;
    /* For each kind of layer. The rows and folds stand before mix; the items last of all, as far as they are filled. */
    struct attn_work attn[CUDA_KINDS];
};

struct cuda_pool {
    struct kv_config kv;
    struct kv_layer layer0; /* of layer 0; the next ones lie k_layer_bytes and scale_layer_bytes further */
    size_t k_layer_bytes, scale_layer_bytes;
    struct f16 *plane; /* [n_slot][n_embd], NULL without hidden_plane */
    float *bank;       /* [n_bank][n_embd] */
    size_t kv_bytes;   /* of the above */
    /* Scratch. R: limits.n_row, L: rows of logits. */
    float *x;           /* [R][n_embd] the residual stream */
    float *y;           /* [R][n_embd] what a half of a layer adds to it; NULL where products add it themselves */
    struct bf16 *h;     /* [R][n_embd] normed */
    float *qkv;         /* [R][heads of q, k and v] */
    float *squares;     /* [R][KV_SQUARES] where heads are normed together */
    struct bf16 *q, *o; /* [R][n_head * head_dim] */
    struct bf16 *ff;    /* [R][n_ff], or [R * n_expert_used][n_ff_expert] */
    float *gate_up;     /* the same with two each; NULL where no layer needs it */
    struct expert_routes routes; /* where layers have experts; n_row is each call's */
    float *expert_y;             /* [R * n_expert_used][n_embd] what comes of each */
    float *rope;                 /* [n_kind][R][rope_dim] */
    float *attn, *gemm;          /* kernels' own */
    float *logits;               /* [L][n_vocab]; of several ranks, those rows that are its own */
    float *score;                /* [L][n_vocab] the same; before, what other ranks sent of them */
    float *slice;                /* [L][shard.n_vocab] all rows of its part of the vocabulary; NULL with one rank */
    float *gathered; /* [n_rank][R][n_embd] what is summed in order of ranks; NULL: sums are the library's */
    struct law_state *law;
    struct raw_state *raw;
    float *contrast; /* [n_readout][CONTRAST_PARTS] */
    void *moves;     /* staging of kv_move */
    /* A library's, where one is used (blas.c): */
    struct bf16 *unpacked; /* outputs of a weight, [..][n_in] */
    float *gated;          /* [R][2][..] what its two products leave of a gated unit */
    void *blas_workspace;
    char *upload;  /* upload_bytes: what host_upload becomes */
    float *result; /* [n_out_f + n_out_i] floats, then ints */
    size_t scratch_bytes, upload_bytes;
    int32_t cap_part, cap_item;
    void *memory;      /* the one device allocation behind all of the above; owned */
    char *host_upload; /* pinned; owned */
    void *host_result; /* pinned, as result; owned */
    int32_t *map;      /* [2 R] readout_work_make's; owned */
};

enum { CUDA_GRAPH_BUCKETS = 9, CUDA_GRAPH_KINDS = 4 }; /* steps of up to 1, 2, 4 .. 256 rows; see graphs.c */

struct cuda_graphs {
    struct CUgraphExec_st *exec[CUDA_GRAPH_BUCKETS][CUDA_GRAPH_KINDS]; /* owned; NULL: there is none */
    bool off;                                                          /* tests: nothing runs by them */
};

enum { CUDA_BLAS_SITES = 24, CUDA_BLAS_BUCKETS = 6 };
struct blas_site;

struct cuda_blas {
    struct blas *library;   /* owned; NULL: products are by own kernels */
    struct blas_site *site; /* [n_site] of at most CUDA_BLAS_SITES; owned */
    int32_t n_site;
    bool watches; /* products that are asked for become sites */
    int code;     /* of the first product that the library could not queue */
};

struct bmodel {          /* of several, the engine has that of rank 0 */
    struct backend *b;   /* borrowed */
    struct model_desc d; /* with the rank's own heads and n_ff */
    int32_t n_kind;      /* of layers: 1 or CUDA_KINDS */
    struct shard shard;
    struct bmodel **rank; /* rank 0's: [n_rank] itself and the others; owned. NULL with one rank, and of others */
    struct plan_limits limits;
    struct cuda_layer *layer; /* [n_layer] owned */
    const void *table;        /* [n_vocab][n_embd] of table_type */
    int32_t table_type;
    const float *out_norm, *inv_freq[CUDA_KINDS];
    struct gemm_weight out;
    void *weights; /* device; owned */
    size_t weight_bytes;
    struct cuda_pool pool;
    struct cuda_graphs graphs;
    struct cuda_blas blas;
    struct cuda_lists lists;             /* of the step in flight */
    const struct step_plan *plan;        /* in flight, or NULL */
    const struct step_plan *shared_plan; /* rank 0's: in flight on all ranks, or NULL */
    bool lost;                           /* the device failed: nothing more runs */
    int comm_code;                       /* of the first exchange with other ranks that could not be queued */
};

/* How many devices there are. -ERR_NOTFOUND: none, or no driver that could run one; the error says which. */
int cuda_devices(const struct cuda_api *api, int32_t *n, struct err *e);
/* What device `index` is. -ERR_NOTFOUND: it cannot run the back end. */
int cuda_device(const struct cuda_api *api, int32_t index, struct cuda_device *out, struct err *e);

/* 0, or -ERR_NOMEM or -ERR_DEVICE with words about `code` and `what` was done. */
int cuda_check(const struct backend *b, int code, const char *what, struct err *e);
int cuda_enter(const struct backend *b, struct err *e); /* the calling thread works on b's device */
int cuda_comm_check(const struct backend *b, int code, const char *what, struct err *e); /* the same of comm_api */

/* One device of n_rank; its stream and its part in a communicator are still to be made. */
int cuda_device_open(const struct backend_options *opt, const struct cuda_libraries *libs, int32_t index,
                     int32_t n_rank, struct backend **out, struct err *e);
int cuda_stream_open(struct backend *b, struct err *e);
void cuda_device_close(struct backend *b);
/* Bytes free on its device; an error counts as none. */
size_t cuda_kv_available(const struct bmodel *m);
void cuda_stats(const struct bmodel *m, struct backend_stats *s);

int cuda_load(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
              void *arg, struct bmodel **out, struct err *e);
void cuda_unload(struct bmodel *m);

/* Lays out the pool for `kv` from `base` on; NULL: only counts. Returns the bytes. 0: not a configuration it can run.
 */
size_t cuda_pool_layout(const struct bmodel *m, const struct kv_config *kv, char *base, struct cuda_pool *p);
size_t cuda_kv_bytes(const struct bmodel *m, const struct kv_config *kv);
/* The pool alone: cuda_prepare makes the rest. */
int cuda_kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e);
/* What is made once the pool is there and makes steps faster: graphs, and plans for a library. */
void cuda_prepare(struct bmodel *m);
void cuda_pool_free(struct bmodel *m);
struct attn_shape cuda_attn_shape(const struct bmodel *m, int kind);
struct kv_layer cuda_kv_layer(const struct cuda_pool *p, int32_t layer);

/* Staging for plans of n: where each array stands. cap_item: of all kinds of layers together. Returns the bytes. */
size_t cuda_lists_layout(const struct plan_limits *n, int32_t block_len, int32_t cap_item, char *base,
                         struct cuda_lists *l);
int cuda_submit(struct bmodel *m, const struct step_plan *p, struct err *e);
/* Until what was submitted is done, and its results are in pinned memory. */
int cuda_finish(struct bmodel *m, struct err *e);
/* From there to r: of several ranks, what is this one's. */
void cuda_collect(const struct bmodel *m, const struct step_plan *p, struct step_result *r);
/* The device's copy of something in staging. */
const void *cuda_on_device(const struct bmodel *m, const void *staged);
/* Makes and uploads the attention lists of a later layer of the step; waits for the stream. */
int cuda_step_attention(struct bmodel *m, const struct step_plan *p, int32_t layer, struct err *e);

/* ---- Between ranks (exchange.c): nothing where there is one ---- */

/* Queues: n floats at x, a multiple of 4, become the sum of what all ranks have of them. Up to n_embd a row. */
void cuda_sum_ranks(struct bmodel *m, float *x, int64_t n);
/* Queues: from every rank's part of the vocabulary of all rows, to all of the vocabulary of each rank's own rows. */
int cuda_exchange_logits(struct bmodel *m, int32_t n_logit, struct err *e);
/* Moves data once, between all ranks, before any is recorded: libraries connect at first use. Waits. */
int cuda_meet(struct bmodel *m, struct err *e);

/* Queues the pass. `graph` stands for cuda_forward_rows; NULL: there is none for this step. */
int cuda_forward(struct bmodel *m, const struct step_plan *p, struct CUgraphExec_st *graph, struct err *e);
/* Its part that graphs record: rows through embedding and layers. */
int cuda_forward_rows(struct bmodel *m, const struct step_plan *p, const struct attn_grid *grid, struct err *e);

/* Records graphs into a pool that was just made. Where that fails there are fewer, and the log says so. */
void cuda_graphs_create(struct bmodel *m);
void cuda_graphs_free(struct bmodel *m);
void cuda_graph_free(struct bmodel *m, int bucket, int kind);
/* How many rows the lists of a plan are laid out for, if it is to run by a graph: at least its own. 0: it is not. */
int32_t cuda_graph_rows(const struct bmodel *m, const struct step_plan *p);
/* The graph for the lists that stand in staging, laid out for n_row; NULL: it was not made. */
struct CUgraphExec_st *cuda_graph_of(struct bmodel *m, int32_t n_row);

/* ---- Products by a library (blas.c) ---- */

/* Opens it for a model that was just loaded, or says in the log why it is left out. */
void cuda_blas_open(struct bmodel *m);
void cuda_blas_close(struct bmodel *m);
/* Scratch of the pool. */
void cuda_blas_layout(const struct bmodel *m, struct cuda_arena *a, struct cuda_pool *p);
/* From here until cuda_blas_choose, products are taken note of; then those are chosen that the library does faster.
 * What cannot be made or does not work is left to the own kernels. */
void cuda_blas_watch(struct bmodel *m);
void cuda_blas_choose(struct bmodel *m);
void cuda_blas_forget(struct bmodel *m);
/* Queues the product, if it was chosen. False: the own kernel is to run. */
bool cuda_blas_product(struct bmodel *m, const struct gemm_args *a);
/* 0, or -ERR_DEVICE: a product could not be queued. */
int cuda_blas_check(struct bmodel *m, struct err *e);

/* ---- Several devices (parallel.c): the operations of backend_ops, on what rank 0 has ---- */

int parallel_open(const struct backend_options *opt, const struct cuda_libraries *libs, struct backend **out,
                  struct err *e);
int parallel_load(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
                  void *arg, struct bmodel **out, struct err *e);
size_t parallel_kv_bytes(const struct bmodel *m, const struct kv_config *kv);
size_t parallel_kv_available(const struct bmodel *m);
int parallel_kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e);
int parallel_submit(struct bmodel *m, const struct step_plan *p, struct err *e);
int parallel_wait(struct bmodel *m, struct step_result *r, struct err *e);
void parallel_stats(const struct bmodel *m, struct backend_stats *s);
void parallel_unload(struct bmodel *m);
void parallel_close(struct backend *b);

#endif
