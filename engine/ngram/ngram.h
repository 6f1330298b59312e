/* How often did these tokens follow those in some text? A read-only store of the 1- to 6-grams of token ids with their
 * counts, for Superposed Decoding (section 2 of papers/autoregressive.md) and drafts (section 8). Private to engine/:
 * strategies look counts up here; `galley ngram build` makes the files (engine/include/ngram_build.h).
 *
 * A store is a trie in sorted arrays. Level n holds the distinct n-grams in lexicographic order, and those that begin
 * alike lie side by side, so a context is found by one binary search for each of its tokens, and what followed it is
 * one sorted range of the next level. Nothing is copied, and a lookup allocates nothing. */
#ifndef GALLEY_NGRAM_H
#define GALLEY_NGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "model/map.h"

enum { NGRAM_MAX = 6 };

struct tokenizer;

struct ngram_level {      /* of n-grams of one length; points into the store */
    const uint8_t *tok;   /* [n] last token of each, 2 or 4 bytes (ngram_tok_bytes) */
    const uint8_t *count; /* [n] u32 >= 1: occurrences */
    const uint8_t *first; /* [n + 1] u32: entry i's continuations are first[i] .. first[i + 1] of the next level; NULL
                             on the last */
    uint32_t n;
};

struct ngram { /* owner: whoever opened it; never changes, so any number of threads read it */
    const uint8_t *base;
    size_t size_bytes;
    struct file_map map; /* where base points, when it is ours to unmap */
    int32_t n_vocab, max_n;
    int32_t tok_bytes;
    uint64_t fingerprint;
    uint32_t n_token, n_doc; /* of the text it was made from; n_token counts beginnings and ends of documents too */
    uint32_t min_count;      /* n-grams that occurred less often were left out */
    struct ngram_level level[NGRAM_MAX]; /* [max_n] level[n - 1] holds the n-grams */
};

/* Maps a store and checks all of it (about a second and a half for each GB): afterwards no lookup leaves the
 * file, whatever it holds. `t`: the tokenizer whose ids will be looked up; NULL accepts any.
 * -ERR_INVALID: made with another tokenizer. -ERR_FORMAT: not a store, or a broken one; the message names the byte.
 * -ERR_NOTFOUND, -ERR_IO, -ERR_NOMEM. */
int ngram_open(struct ngram **out, const char *path, const struct tokenizer *t, struct err *e);
/* The memory stays the caller's and must outlive the result. `name` stands for the path in messages. */
int ngram_open_mem(struct ngram **out, const void *data, size_t size_bytes, const char *name, const struct tokenizer *t,
                   struct err *e);
void ngram_close(struct ngram *g); /* NULL is legal */

/* Which tokenizer? A hash of the bytes of all its tokens in order: equal where ids mean the same text. */
uint64_t ngram_fingerprint(const struct tokenizer *t);

/* How often each of tok[0..n_tok) followed the context ctx[0..n_ctx), oldest token first: count[0..n_tok), 0 where it
 * never did. Returns how often the context occurred: at least the sum of the counts of all that can follow. 0: it is
 * not in the store, or not of 0 .. max_n - 1 tokens. The empty context occurred at every token. Any ids may be asked
 * for. */
uint32_t ngram_counts(const struct ngram *g, const int32_t *ctx, int32_t n_ctx, const int32_t *tok, int32_t n_tok,
                      uint32_t *count);

/* What followed the context most often: at most n_top tokens with their counts, the most frequent first, of equals the
 * smaller id. Looks at the first `max_scan` continuations only (in the order of ids; vocabularies have frequent tokens
 * first). Returns how many; *total: as ngram_counts returns it. */
int32_t ngram_top(const struct ngram *g, const int32_t *ctx, int32_t n_ctx, uint32_t max_scan, int32_t *tok,
                  uint32_t *count, int32_t n_top, uint32_t *total);

#endif
