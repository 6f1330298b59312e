/* The cpu back end's own structures. Private to kernels/cpu.
 *
 * A step is one parallel region over the worker pool: workers go through the same phases, each doing its share of
 * panels or rows, with a barrier where a phase reads what others wrote. What an element is never depends on who
 * computes it. */
#ifndef GALLEY_CPU_H
#define GALLEY_CPU_H

#include <stdatomic.h>

#include "backend.h"
#include "isa.h"
#include "lanes.h"
#include "placement.h"
#include "pool.h"
#include "product.h"
#include "readout.h"
#include "weight.h"

enum {
    OWN_ROWS = 2,   /* up to so many rows every worker prepares its own activations, which spares a barrier */
    HEAD_ROWS = 64, /* rows whose logits are in memory at once */
};

struct region { /* zeroed memory, 64-byte aligned; large ones are mapped, on huge pages where there are any */
    void *mem;
    size_t bytes;
    int mapped;
    char *base;
};

int region_create(struct region *r, size_t bytes, struct err *e);
void region_free(struct region *r);

struct backend {
    struct backend_options opt;
    const struct cpu_isa *isa;
    struct pool *pool;
    struct placement place; /* one node unless workers are kept to several */
};

struct expert {
    struct weight gate, up, down;
};

struct layer { /* vectors are padded to 16 with zeros; NULL: absent */
    float *attn_norm, *post_attn_norm, *ffn_norm, *post_ffn_norm, *bq, *bk, *bv, *q_norm, *k_norm;
    struct weight wq, wk, wv, wo, gate, up, down, router;
    struct expert *expert; /* [n_expert] with a router */
};

/* [n_layer][n_head_kv][n_block][block_len][one head as stored], in groups as lanes.h has it. Attention reads one head
 * at a time, and what it reads should be in one piece where the blocks of a sequence follow each other. */
struct kv_plane {
    int32_t type, lanes, step;      /* of lanes.h: slots of a group, from element to element */
    size_t row, block, head, layer; /* bytes of one head's slot, of its slots in a block, in all blocks, of a layer */
    char *data;
};

struct chunk { /* rows of one span that attention takes together */
    int32_t span, row0, n_row;
    int32_t segment, segment_end; /* of the positions that the rows see */
    int32_t n_run, run_bits;      /* cut into runs of 2^run_bits segments, numbered by position */
    int32_t partial0;             /* results of runs: [n_head_kv][n_run] from here on */
    int whole;                    /* neither the span nor the chunk is cut: an item stores the keys it reads */
};

struct attend_plan {     /* attention's work of a step, in layers of one kind: what they see differs */
    struct chunk *chunk; /* [n_row] */
    int32_t n_chunk;
    int prepare;        /* some chunk is not whole */
    atomic_int *n_done; /* [cpu_n_partial]: runs done, of a chunk and head, at its first */
};

/* Work that is handed out while it lasts: a worker that a busy neighbour holds up does less, and nobody waits for it
 * longer than for one piece. */
enum ticket { TICKET_QKV, TICKET_ATTEND, TICKET_WO, TICKET_ROUTE, TICKET_GLU, TICKET_DOWN, N_TICKET };

/* Which experts the rows of a layer go to, as each worker finds it. A place is a row with one of its experts; places
 * are sorted by expert, so that an expert's weights are read once for all its rows. */
struct routes {
    int32_t *place;        /* [n_row][n_expert_used], the likeliest expert first */
    float *share;          /* the same: what its result counts */
    int32_t *row;          /* [place]: index into worker.row */
    int32_t *first;        /* [n_expert + 1]: places of each expert */
    int32_t *used, n_used; /* experts with rows */
};

struct worker { /* one for each pool member; the members of a padded array */
    struct bmodel *m;
    int32_t id, node;
    int32_t *row, n_row;                         /* plan rows active in this layer, ascending */
    struct acts own, acts;                       /* room for OWN_ROWS; what the products at hand read, own or shared */
    float *product_buf, *attend, *partial, *tmp; /* scratch: see product.h and isa.h; tmp [n_embd] */
    struct routes routes;
    char *staging;
    struct readout_ws readout;
    char pad[64];
};

struct bmodel { /* owner: its backend's caller */
    struct backend *b;
    struct model_desc d;
    struct plan_limits limits;

    struct region weights;
    int from_cache;              /* the weights were packed by an earlier start */
    struct weight tok_embd, out; /* the same data when tied */
    float *out_norm;
    struct layer *layer;

    struct kv_config kv;
    struct region cache, scratch;
    struct kv_plane k, v;
    uint16_t *plane;                 /* [n_slot][n_embd] unit-length hidden states in f16, NULL without hidden_plane */
    float *bank;                     /* [n_bank][n_embd] */
    size_t n_q, n_kv, n_ff, n_vocab; /* widths rounded up to whole panels: strides of what follows */
    size_t n_embd, n_expert, n_ff_expert;
    float *x, *q, *k_new, *v_new, *h; /* [n_row][n_embd], [n_row][n_q], [n_row][n_kv] twice, [n_row][n_ff] */
    float *rope;                      /* [n_row][n_kind][rope_dim / 2][cos, sin] */
    float *y;                         /* [n_row or places][n_embd]: what is yet to be added to x */
    float *route, *h_expert;          /* [n_row][n_expert], [place][n_ff_expert] */
    int32_t *count;                   /* 0, 1, 2, ... for each place */
    struct acts expert_acts;          /* of places */
    float *logits;                    /* [HEAD_ROWS][n_vocab] */
    struct acts shared;
    struct worker *worker;
    struct attend_plan attend[2];               /* by kind of layer */
    float *run;                                 /* [cpu_n_partial][attend_partial] */
    int32_t *head_row, *first_read, *next_read; /* rows whose logits are read; their readouts, as lists */
    atomic_int *ticket;                         /* [n_layer][N_TICKET][node], then [one for each HEAD_ROWS][node] */

    const struct step_plan *plan; /* from submit to wait */
    struct step_result *result;
    int32_t n_head_row;
    int partial; /* some span skips layers */
    int n_kind;  /* of layers: 1 or 2 */
    int keeps_y; /* some layer norms what it adds, or mixes experts */
};

/* memory.c */
size_t cpu_kv_bytes(const struct bmodel *m, const struct kv_config *kv);
int cpu_kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e);
void cpu_kv_free(struct bmodel *m);
void cpu_stats(const struct bmodel *m, struct backend_stats *s);

/* load.c */
int cpu_load(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
             void *arg, struct bmodel **out, struct err *e);
void cpu_unload(struct bmodel *m);

/* near.c: where a node's workers find what they read. Nothing on one node. */
struct slots;
void cpu_touch_near(struct bmodel *m, const struct slots *s);

/* forward.c: runs on every worker; x then holds each row's residual stream after its last layer. */
void cpu_forward(struct worker *w);
/* Activations of the worker's rows of x, normalised unless norm is NULL, in the kinds that `uses` names. Ends with a
 * barrier when they are shared. */
const struct acts *cpu_prepare(struct worker *w, const float *x, size_t stride, int32_t n, const float *norm, int uses);
/* One row of n elements as row i of `a`. */
void cpu_prepare_row(const struct worker *w, int32_t i, const float *x, int32_t n, const float *norm, int uses,
                     const struct acts *a);
/* x += y of plan row r, after an optional norm, which overwrites y. */
void cpu_add_row(const struct worker *w, int32_t r, float *y, const float *post_norm);
/* All panels of a product of the worker's rows, for as long as the ticket has any. */
void cpu_product(struct worker *w, atomic_int *ticket, const struct product *p);
/* The next of n panels that no worker has taken, those of the worker's node first; 0 when there are none. A ticket is
 * one counter for each node. */
int cpu_take(const struct worker *w, atomic_int *ticket, int32_t n, int32_t *first, int32_t *end);
/* Worker w's share of n things. */
void cpu_share(const struct worker *w, int32_t n, int32_t *first, int32_t *end);

/* A layer's ticket of one kind. */
atomic_int *cpu_ticket(const struct worker *w, int32_t layer, enum ticket t);

/* moe.c: a layer's experts. */
void cpu_experts(struct worker *w, int32_t layer);

/* attention.c */
int32_t cpu_n_partial(const struct bmodel *m);
void cpu_plan_attention(struct bmodel *m);
/* Stores the rows' K and V and replaces their q by what their heads attend to. */
void cpu_attend(struct worker *w, int32_t layer);

/* head.c: readouts, after cpu_forward. */
void cpu_plan_heads(struct bmodel *m);
void cpu_read_out(struct worker *w);

static inline int span_active(const struct span *s, int32_t layer)
{
    return s->layer0 <= layer && layer < s->layer1;
}

static inline enum product_how cpu_glu(const struct bmodel *m)
{
    return m->d.flags & MODEL_GELU ? PRODUCT_GELU : PRODUCT_SILU;
}

static inline float *cpu_angles(const struct bmodel *m, int32_t row, int kind)
{
    return m->rope + (size_t)(row * m->n_kind + kind) * (size_t)(m->d.rope_dim / 2 * 2);
}

static inline size_t cpu_n_ticket(const struct bmodel *m)
{
    return ((size_t)m->d.n_layer * N_TICKET + (size_t)(m->limits.n_row / HEAD_ROWS + 1)) * (size_t)m->b->place.n_node;
}

/* One KV head's slot (pool slot number). */
static inline struct lane kv_at(const struct bmodel *m, const struct kv_plane *p, int32_t layer, int32_t head,
                                int32_t slot)
{
    int32_t len = m->kv.block_len, i = slot % p->lanes;
    return (struct lane){p->data + (size_t)layer * p->layer + (size_t)(slot / len) * p->block + (size_t)head * p->head +
                             (size_t)(slot % len - i) * p->row,
                         p->lanes, p->step, i};
}

#endif
