/* The step plan: the one kind of work a back end knows. The engine fills a plan each step, plan_check proves it well
 * formed, the back end reads it from submit to wait and never writes it. One allocation, no pointers to other memory,
 * so that it can be copied to a device, dumped, replayed, fuzzed and compared across back ends.
 *
 * A step is a set of *spans*. A span is one sequence's committed context and some *rows* to compute: first a chain
 * (each row follows the one before), then at most 64 tree rows (each names its parent). A row's K and V go to slot
 * ctx_len + n_held + i of its sequence. *Readouts* say what comes back. See DESIGN.md, section 2, for the invariants.
 */
#ifndef GALLEY_PLAN_H
#define GALLEY_PLAN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"

enum {
    PLAN_MAX_TREE = 64,  /* tree rows a span can see, held ones included: one bit each in vis */
    PLAN_MAX_LIST = 128, /* tokens in the list of one PROBE or LOGPROB */
    PLAN_MAX_TOPK = 256, /* k of one TOPK */
};

enum attn_kind {
    ATTN_CAUSAL = 0, /* a row sees the context, the chain before it and itself, its tree ancestors */
    ATTN_FULL = 1,   /* block diffusion: all chain rows of the span see each other as well; no tree rows */
};

/* How a row's input is made. `tok` of a row is a token id, or MIX_ROW(i): plan->mix[i]. */
#define MIX_ROW(i) (-1 - (int32_t)(i))
#define ROW_MIX(tok) (-1 - (tok))

struct mix { /* input = sum over its parts of weight * source; equal sources are merged by the builder's caller */
    int32_t part0, n_part; /* plan->part[part0 ..] */
    uint8_t from_bank;     /* 0: part.src is a token id, 1: a row of the model's bank (images, prompt embeddings) */
};

struct mix_part {
    int32_t src;
    float weight;
};

/* A row's parent: >= 0, row i of the same span; PARENT_CTX, the last committed token (or none when ctx_len is 0);
 * HELD_PARENT(j), held row j. A chain row's parent is the row before it. */
#define PARENT_CTX ((int16_t)-1)
#define HELD_PARENT(j) ((int16_t)(-2 - (j)))
#define PARENT_HELD(parent) (-2 - (parent))

struct span {
    int32_t seq;            /* the engine's number, for dumps and errors only */
    int32_t ctx_len;        /* committed tokens: slot i holds position i */
    int32_t n_held, held0;  /* uncommitted rows of earlier plans at slots ctx_len.., described by plan->held[held0..];
                               they are tree bits 0..n_held-1. A span with held rows has no chain. */
    int32_t row0, n_row;    /* plan rows row0 .. row0+n_row-1 */
    int32_t n_chain;        /* the first n_chain of them are the chain; row r >= n_chain is tree bit n_held+r-n_chain */
    int32_t n_counted;      /* chain rows whose tokens the law's counts already include */
    int32_t bt_off, bt_len; /* block table plan->bt[bt_off ..], covering every slot the span reads or writes */
    int32_t group;          /* spans with one group share context blocks (forks of a request); -1: none */
    int32_t law;            /* plan->law index; -1: no PROCESSED readout in this span */
    int16_t layer0, layer1; /* run layers layer0..layer1-1, then the final norm and head. layer0 > 0 only for rows
                               whose inputs come from the bank (a hidden state saved at that layer) */
    uint8_t attn;           /* enum attn_kind */
};

struct held_row {
    int32_t tok;
    int16_t parent; /* as for rows; PARENT_CTX or HELD_PARENT of an earlier one */
};

/* Copies n slots (at most a block's worth) src..src+n-1 to dst.. in every layer before the pass. Slots are numbered in
 * the pool: block * block_len + offset. All moves of a plan read their sources before any writes. */
struct kvop {
    int32_t src, dst, n;
};

enum top_h_mode { TOP_H_PARTIAL = 0, TOP_H_ENTROPY = 1 };

/* How logits become the distribution p. Order: bias, mask and bans, repetition / frequency / presence penalties,
 * temperature, top-k, top-p, min-p, typical-p, top-h, renormalise. Neutral values switch a processor off. */
struct law {
    float temperature;      /* 0: one-hot on the largest logit, lowest id among equals */
    float top_p, min_p;     /* neutral 1, 0 */
    float typical_p;        /* neutral 1 (Meister et al., locally typical sampling) */
    float top_h;            /* 0 = off, else alpha in (0, 1] */
    int32_t top_k, top_h_n; /* neutral 0; top_h_n: prefix considered by TOP_H_PARTIAL, 100 in the paper's code */
    uint8_t top_h_mode;     /* enum top_h_mode */
    float repetition;       /* neutral 1: logit > 0 ? logit / r : logit * r, for tokens seen in prompt or output */
    float frequency;        /* neutral 0: subtracted once for each occurrence in the output */
    float presence;         /* neutral 0: subtracted once when in the output */
    int32_t tok0, n_tok;    /* plan->law_tok[tok0 ..], ascending token ids */
    int32_t ban0, n_ban;    /* plan->ban[ban0 ..]: token ids of probability 0 */
    uint64_t noise_key;     /* of every draw under this law; the position is the counter */
};

struct law_tok {
    int32_t tok, n_prompt, n_output; /* occurrences so far */
    float bias;                      /* added to the logit */
};

enum readout_kind {
    READ_SAMPLE,  /* i[0] a draw from p, -1 when no token is allowed or the logits are not finite. With n = 1 also f[0]
                     its  ln p, f[1] its RAW log-probability, i[1] its rank: tokens with a larger logit; with n = 0 these
                     are 0 */
    READ_TOPK,    /* i[0..n) the n likeliest tokens, -1 where there are fewer; f[0..n) log-probabilities; f[n] logsumexp
                     (RAW: of the logits; else 0, p being normalised); f[n+1] entropy in nats */
    READ_LOGPROB, /* listed tokens: f[0..n) log-probabilities, i[0..n) rank: tokens with a larger one */
    READ_PROBE, /* listed tokens, PROCESSED: f[0..n) p, f[n] the mass off the list; i[0] a draw from p, i[1] a draw from
                   p off the list (-1: no mass there). With raw also what the client may be told of whichever is taken:
                   f[n+1..2n+3) RAW log-probabilities and i[2..n+4) ranks of the listed tokens and of both draws */
    READ_CONTRAST, /* f[0] largest cosine between the row's final hidden state and those of the positions it sees,
                      itself excluded; needs the hidden plane of the KV pool (SimCTG, degeneration penalty) */
    READ_HIDDEN, /* f[0..n_embd) the final hidden state (after the last norm), or to the bank when `bank` >= 0 (then the
                    residual stream after layer1, before the norm, is stored, so that layer0 can resume it) */
};

struct readout {
    uint8_t kind;   /* enum readout_kind */
    uint8_t raw;    /* 1: of the logits as they are; 0: of the law's p. For TOPK and LOGPROB; PROBE: as well */
    int32_t row;    /* plan row */
    int32_t n;      /* list length, or k, or n_embd */
    int32_t list0;  /* LOGPROB, PROBE: plan->list[list0 ..] distinct token ids */
    int32_t bank;   /* HIDDEN: bank slot or -1 */
    int32_t f0, i0; /* where its results begin in step_result.f and .i: set by plan_readout */
};

/* Draws of one position use disjoint streams of the same key. Counter = {token / 4, position drawn, stream, 0}; for
 * NOISE_ACCEPT and NOISE_DRAFT, which the engine draws: {questions so far, position of the step's first token, ..}. */
enum noise_stream { NOISE_TARGET = 0, NOISE_OFF_LIST = 1, NOISE_ACCEPT = 2, NOISE_DRAFT = 3 };

struct plan_limits { /* capacities; a plan never grows */
    int32_t n_span, n_row, n_held, n_mix, n_part, n_kvop, n_law, n_law_tok, n_ban, n_mask, n_readout, n_list, n_bt;
    int32_t n_out_f, n_out_i; /* results */
    int32_t n_vocab;          /* width of a mask */
};

struct step_plan {             /* owner: the engine's step, lent to the back end from submit to wait */
    struct plan_limits cap, n; /* n: what is in use (n.n_vocab == cap.n_vocab) */
    struct span *span;
    int32_t *tok, *pos; /* [n_row] input token or MIX_ROW; position in the sequence */
    int16_t *parent;    /* [n_row] */
    uint64_t *vis;      /* [n_row] tree rows: bits of the tree rows it sees, its own included; chain rows: 0 */
    int32_t *row_mask;  /* [n_row] index into mask, -1: none */
    struct held_row *held;
    struct mix *mix;
    struct mix_part *part;
    struct kvop *kvop;
    struct law *law;
    struct law_tok *law_tok;
    int32_t *ban;
    uint32_t *mask; /* [n_mask][mask_words(n_vocab)] bit t set: token t allowed */
    struct readout *readout;
    int32_t *list;
    int32_t *bt; /* block ids */
    void *mem;   /* the one allocation behind all of the above; owned */
    size_t mem_bytes;
};

static inline int32_t mask_words(int32_t n_vocab)
{
    return (n_vocab + 31) / 32;
}

struct step_result { /* owner: the engine; written by the back end before wait returns */
    float *f;
    int32_t *i;
};

/* What a plan must fit: the model and the pool it runs on. */
struct plan_env {
    int32_t n_vocab, n_layer, n_embd, n_block, block_len, n_bank, hidden_plane;
};

int plan_create(struct step_plan *p, const struct plan_limits *cap, struct err *e);
void plan_free(struct step_plan *p);
void plan_reset(struct step_plan *p);

/* Builders append and return the index, or -ERR_NOMEM when the plan is full (nothing is changed then). A span is opened
 * with plan_span (its row0, n_row and bt fields are filled by the builder), then takes rows and blocks until the next
 * plan_span. */
int plan_span(struct step_plan *p, const struct span *s);
int plan_row(struct step_plan *p, int32_t tok, int32_t pos, int16_t parent, uint64_t vis);
int plan_blocks(struct step_plan *p, const int32_t *block, int32_t n);
int plan_held(struct step_plan *p, int32_t tok, int16_t parent);
int plan_mix(struct step_plan *p, const struct mix_part *part, int32_t n, int from_bank);
int plan_kvop(struct step_plan *p, int32_t src, int32_t dst, int32_t n);
int plan_law(struct step_plan *p, const struct law *l, const struct law_tok *tok, int32_t n_tok, const int32_t *ban,
             int32_t n_ban);
/* Equal masks are stored once. */
int plan_mask(struct step_plan *p, const uint32_t *mask);
/* Sets f0, i0 and list0; `list` has r->n token ids for LOGPROB and PROBE, else NULL. */
int plan_readout(struct step_plan *p, const struct readout *r, const int32_t *list);

/* Floats and ints that a readout returns, for a model of n_embd. */
void readout_size(const struct readout *r, int32_t *n_f, int32_t *n_i);

/* Proves every invariant a back end relies on; the error names span, row or readout. Cost O(rows * 64). */
int plan_check(const struct step_plan *p, const struct plan_env *env, struct err *e);

/* Text form, one record a line; plan_parse reads it back (tests, fuzzing, replay of a crash). */
void plan_dump(const struct step_plan *p, FILE *out);
int plan_parse(struct step_plan *p, FILE *in, struct err *e);

#endif
