/* Inside the tokenizer: only
 * engine/text/{tokenizer,vocab,special,pretoken,normalize,symbols,bpe,spm,unigram,detok,tok_*}.c include this.
 */
#ifndef GALLEY_TOK_IMPL_H
#define GALLEY_TOK_IMPL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdatomic.h>

#include "tokenizer.h"

/* ---- vocab.c: tokens' bytes, bytes to id, pairs to merges ---- */

struct vocab_slot {
    uint32_t hash;
    int32_t id; /* -1: free */
};

struct merge_slot {
    int32_t left, right; /* left -1: free */
    int32_t rank, id;    /* lower ranks merge first; id is what left and right become */
};

struct vocab {
    int32_t n;
    uint8_t *type;           /* [n] enum tok_type */
    uint32_t *offset;        /* [n + 1] into bytes */
    char *bytes;             /* all tokens' bytes, one after the other */
    size_t max_bytes;        /* of one token */
    int32_t byte_id[256];    /* the token of a single byte, or -1 */
    struct vocab_slot *slot; /* tokens that text can become by merging */
    uint32_t slot_mask;
    int32_t *rank; /* [n] SentencePiece: 0 for the highest score; equal scores have equal ranks. Else NULL */
    double *log_prob, unk_log_prob; /* [n] Unigram, and of a character that is no token; else NULL */
    struct merge_slot *merge;
    uint32_t merge_mask;
};

int vocab_init(struct vocab *v, const struct tok_config *c, struct err *e);
void vocab_free(struct vocab *v);
int32_t vocab_find(const struct vocab *v, const char *p, size_t n); /* -1: no such normal token */
const struct merge_slot *vocab_merge(const struct vocab *v, int32_t left, int32_t right);

static inline struct slice vocab_piece(const struct vocab *v, int32_t id)
{
    return (struct slice){v->bytes + v->offset[id], v->offset[id + 1] - v->offset[id]};
}

/* ---- special.c: tokens recognised by their names ---- */

struct trie_node {
    int32_t child, sibling; /* -1: none */
    int32_t id;             /* the token that ends here, or -1 */
    uint8_t byte;
};

struct special {
    struct trie_node *node; /* [n_node]; node 0 is the root */
    int32_t n_node;
    int32_t root_child[256]; /* by first byte: node or -1 */
    int32_t *eog;            /* [n_eog] ascending */
    int32_t n_eog;
};

/* Also completes ids from well-known names. */
int special_init(struct special *s, const struct vocab *v, const struct tok_config *c, struct tok_ids *ids,
                 struct err *e);
void special_free(struct special *s);
/* The longest special token at p[0..n), or -1. */
int32_t special_match(const struct special *s, const struct vocab *v, const char *p, size_t n, bool with_control,
                      size_t *len);

/* ---- pretoken.c: cutting text into the pieces that merges never cross ---- */

struct pretoken {
    pcre2_code *code[TOK_MAX_REGEX]; /* [n_stage] each cuts the pieces of the one before */
    int n_stage;
    bool has_jit, is_nfc, ignore_merges, adds_bos;
};

struct pretoken_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

int pretoken_init(struct pretoken *p, const struct tok_config *c, struct err *e);
void pretoken_free(struct pretoken *p);
int pretoken_scratch_init(struct pretoken_scratch *s, const struct pretoken *p);
void pretoken_scratch_free(struct pretoken_scratch *s);
/* The piece of a stage that begins at `at` of valid UTF-8; returns its end, or 0 when the match ran into a limit. */
size_t pretoken_next(const struct pretoken *p, int stage, struct pretoken_scratch *s, const char *text, size_t n,
                     size_t at);

/* ---- normalize.c ---- */

struct normal_scratch {
    int32_t *cp;
    char *text;
    size_t cp_cap, text_cap;
};

/* Unicode NFC of valid UTF-8, in the scratch or, when nothing changes, the input itself. Returns 0 or -ERR_NOMEM. */
int normalize_nfc(struct normal_scratch *s, struct slice in, struct slice *out);

/* Spaces as tokens have them: U+2581 becomes a space, and `prefix` puts one before all. In the scratch. Returns 0 or
 * -ERR_NOMEM. */
int normalize_spaces(struct normal_scratch *s, struct slice in, bool prefix, struct slice *out);

/* ---- symbols.c: a text on its way to tokens ---- */

enum { NO_RANK = INT32_MAX };

struct symbols { /* a linked list of symbols and a heap of pairs that may merge */
    int32_t *id, *next, *prev, *rank;
    uint64_t *heap; /* rank << 32 | position */
    size_t cap, n_heap, heap_cap;
};

/* Room for n symbols, the heap empty. Returns 0 or -ERR_NOMEM. */
int symbols_reserve(struct symbols *s, size_t n);
void symbols_free(struct symbols *s);
/* The pair that begins at symbol i may merge, in this order; NO_RANK: not. */
void symbols_offer(struct symbols *s, int32_t i, int32_t rank);
/* The pair to merge next, the leftmost of equal ones; -1: none. It is offered no longer. */
int32_t symbols_best(struct symbols *s);
/* Symbol i takes in the one after it. Returns that one. */
int32_t symbols_join(struct symbols *s, int32_t i);

/* ---- bpe.c ---- */

struct sink { /* where ids go; counts beyond its room */
    int32_t *out;
    size_t cap, n;
};

static inline void sink_put(struct sink *s, int32_t id)
{
    if (s->n < s->cap)
        s->out[s->n] = id;
    s->n++;
}

/* Merges one piece to the end. Returns 0 or -ERR_NOMEM. */
int bpe_piece(const struct vocab *v, int32_t unk, const char *p, size_t n, struct symbols *s, struct sink *out);

/* ---- spm.c ---- */

/* Any bytes, spaces normalized. Returns 0 or -ERR_NOMEM. */
int spm_text(const struct vocab *v, int32_t unk, struct slice text, struct symbols *s, struct sink *out);
/* The token of these bytes, or where there is none the tokens of each byte, or `unk`. */
void spm_put(const struct vocab *v, int32_t unk, const char *p, size_t len, struct sink *out);

/* ---- unigram.c ---- */

struct lattice { /* by place in the text: the likeliest way to it */
    double *log_prob;
    int32_t *from; /* where its last token begins; an unknown character's is -1 - it */
    int32_t *to;   /* on the way that is taken: where the token ends; an unknown character's is minus it */
    size_t cap;
};

int unigram_text(const struct vocab *v, int32_t unk, struct slice text, struct lattice *l, struct sink *out);
void lattice_free(struct lattice *l);

/* ---- tokenizer.c ---- */

struct tokenizer {
    struct vocab vocab;
    struct special special;
    struct pretoken pre;
    struct tok_ids ids;
    enum tok_model model;
    enum tok_prefix prefix;
    bool add_bos, add_eos, splits_spaces;
    uint8_t *strip; /* [n_vocab] TOK_STRIP_*, or NULL */
    /* Whether a token's own bytes merge into that token alone. Worked out when first asked: 0 unknown, 1 yes, 2 no.
     * Threads may work it out twice; they agree. */
    _Atomic uint8_t *merges_whole;
};

struct tok_scratch {
    struct pretoken_scratch pre;
    struct normal_scratch normal;
    struct symbols symbols;
    struct lattice lattice;
};

#endif
