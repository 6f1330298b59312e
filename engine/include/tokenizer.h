/* Text to token ids and back: byte-level BPE, and SentencePiece's BPE with byte fallback. Public: the server tokenises
 * requests on its own threads, the engine turns ids into text. A struct tokenizer never changes after it is made; any
 * number of threads use it, each with its own scratch. Sampling, chat templates and stop strings are elsewhere: this
 * header knows ids and bytes only.
 *
 * Sources: Sennrich et al. 2016 (BPE), GPT-2's byte alphabet, Kudo and Richardson 2018 (SentencePiece), the GGUF keys
 * tokenizer.ggml.*. */
#ifndef GALLEY_TOKENIZER_H
#define GALLEY_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "slice.h"

struct gguf;
struct tokenizer;
struct tok_scratch;

/* GGUF's numbers. Control, unknown and unused tokens are not text; user-defined ones are text that is never split. */
enum tok_type {
    TOK_NORMAL = 1,
    TOK_UNKNOWN = 2,
    TOK_CONTROL = 3,
    TOK_USER_DEFINED = 4,
    TOK_UNUSED = 5,
    TOK_BYTE = 6,
};

/* Ids that a model file names; -1 where it names none. */
struct tok_ids {
    int32_t bos, eos, eot, eom, unk, sep, pad;
    int32_t fim_prefix, fim_suffix, fim_middle, fim_pad, fim_repo, fim_sep;
};

/* ---- making ---- */

enum tok_model {
    TOK_BYTE_BPE,      /* words of bytes, merged by a list */
    TOK_SENTENCEPIECE, /* the whole text as characters, merged to the tokens of the highest scores, or cut (Unigram) */
};

enum tok_prefix { /* where SentencePiece's text begins with a space that the text does not have */
                  TOK_PREFIX_NONE,
                  TOK_PREFIX_ALWAYS,  /* between special tokens, and at both ends */
                  TOK_PREFIX_MISSING, /* the same, where there is none yet */
                  TOK_PREFIX_FIRST    /* at the very beginning, where there is none yet */
};

enum { TOK_MAX_REGEX = 4, TOK_STRIP_LEFT = 1, TOK_STRIP_RIGHT = 2 };

struct tok_config { /* borrowed for the call */
    enum tok_model model;
    const char *pre;          /* tokenizer.ggml.pre: which regular expression cuts text into words; NULL = "default" */
    const char *const *regex; /* [n_regex] instead of `pre`: each cuts the pieces of the one before; NULL: none */
    int n_regex;
    bool is_nfc, ignores_merges; /* with `regex`: text is normalised; a word that is a token becomes it unmerged */
    int32_t n_vocab;
    const struct slice *text; /* [n_vocab] in GPT-2's byte alphabet, or with U+2581 for a space (SentencePiece); control
                                 and user-defined ones as they are */
    const int32_t *type;      /* [n_vocab] enum tok_type; NULL = all normal */
    int32_t n_merge;
    const struct slice *merge; /* [n_merge] "left right", best first */
    const float *score;        /* [n_vocab], of SentencePiece; NULL: it merges by `merge` */
    const double *log_prob;    /* [n_vocab], of SentencePiece's Unigram: the likeliest tokens; -INFINITY: never. Else NULL */
    enum tok_prefix prefix;    /* of SentencePiece */
    bool splits_spaces;        /* of SentencePiece: a word begins at every space, and merges end with it */
    const uint8_t *strip;      /* [n_vocab] white space that special tokens take with them, TOK_STRIP_*; NULL: none */
    const int32_t *eos;        /* [n_eos] ids that end an answer, besides those below */
    int n_eos;
    struct tok_ids ids;
    int add_bos, add_eos; /* 0, 1, or -1 for the usual of this `pre` */
};

/* ERR_FORMAT: the vocabulary contradicts itself (the message names the token or merge), or `pre` is unknown. */
int tok_new(struct tokenizer **out, const struct tok_config *c, struct err *e);
/* From the keys tokenizer.ggml.*; copies what it needs. */
int tok_from_gguf(struct tokenizer **out, const struct gguf *g, struct err *e);
/* From DIR/tokenizer.json and tokenizer_config.json of a Hugging Face directory. `eos`: ids that end an answer besides
 * those it names itself. */
int tok_from_hf(struct tokenizer **out, const char *dir, const int32_t *eos, int32_t n_eos, struct err *e);
/* A small vocabulary for tests and the fake back end: ids 0..255 are the bytes themselves, then <|endoftext|> (bos,
 * eos),
 * <|im_start|>, <|im_end|>, then one token per merge ("t h", in the byte alphabet; a space is \u0120). */
int tok_new_tiny(struct tokenizer **out, const char *pre, const char *const *merge, int32_t n_merge, struct err *e);
enum { TOK_TINY_EOT = 256, TOK_TINY_IM_START = 257, TOK_TINY_IM_END = 258, TOK_TINY_MERGE0 = 259 };
void tok_free(struct tokenizer *t); /* NULL is legal */

struct tok_scratch *tok_scratch_new(const struct tokenizer *t); /* for this tokenizer only; NULL: out of memory */
void tok_scratch_free(struct tok_scratch *s);                   /* NULL is legal */

/* ---- encoding ---- */

enum {
    TOK_ADD_SPECIAL = 1,   /* bos and eos, where the model wants them */
    TOK_PARSE_SPECIAL = 2, /* "<|im_end|>" in the text is the token, not nine characters: never for users' text */
};

/* *n is the number of ids the text makes. -ERR_TOOLONG when that exceeds cap: out[0..cap) is filled, and a second call
 * with room for *n succeeds. Bytes that are not UTF-8 are encoded one by one. -ERR_NOMEM; -ERR_INVALID when the text
 * defeats the regular expression's limits. Allocates only to grow the scratch. */
int tok_encode(const struct tokenizer *t, const char *text, size_t n_bytes, int flags, int32_t *out, size_t cap,
               size_t *n, struct tok_scratch *s, struct err *e);

/* ---- looking up ---- */

int32_t tok_n_vocab(const struct tokenizer *t);
/* The bytes of a token (a control token's: its name). Empty for an id out of range. Not always whole characters. */
struct slice tok_piece(const struct tokenizer *t, int32_t id);
size_t tok_max_piece_bytes(const struct tokenizer *t);
/* The token that stands for exactly these bytes, or -1; control and user-defined tokens are found by their names. */
int32_t tok_find(const struct tokenizer *t, struct slice bytes);
bool tok_is_control(const struct tokenizer *t, int32_t id);    /* not text: control, unknown, unused, or out of range */
bool tok_is_eog(const struct tokenizer *t, int32_t id);        /* generating it ends the answer */
const int32_t *tok_eog(const struct tokenizer *t, int32_t *n); /* all of those, ascending */
const struct tok_ids *tok_ids(const struct tokenizer *t);
bool tok_adds_bos(const struct tokenizer *t);
bool tok_adds_eos(const struct tokenizer *t);

/* ---- decoding as tokens arrive ---- */

/* Never emits part of a character. What is not UTF-8 becomes U+FFFD exactly where Python's
 * bytes.decode('utf-8', 'replace') on the whole would put it. Plain data: copy it to fork. */
struct detok { /* owned by whoever decodes one sequence */
    const struct tokenizer *tok;
    bool skip_control; /* control tokens leave no text */
    uint8_t n_pend;
    uint8_t pend[4]; /* the beginning of a character */
};

void detok_init(struct detok *d, const struct tokenizer *t, bool skip_control);
/* Room that one push or flush can need, in bytes. */
size_t detok_bound(const struct tokenizer *t);
/* Writes what became complete to out[0..detok_bound) and returns its length; no terminator. */
size_t detok_push(struct detok *d, int32_t id, char *out);
/* The end: an unfinished character becomes U+FFFD. */
size_t detok_flush(struct detok *d, char *out);

#endif
