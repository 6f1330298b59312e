/* The bytes of an n-gram store, shared by the one who writes it and the one who checks it. Private to engine/ngram.
 *
 * Little-endian. A header, then for each level n = 1 .. max_n
 *
 *     tok    [n_gram[n - 1]]      of 2 bytes where the vocabulary has at most 65536 tokens, else 4; zeros up to a
 *                                 multiple of 4 bytes
 *     count  [n_gram[n - 1]]      u32
 *     first  [n_gram[n - 1] + 1]  u32; not on the last level
 *
 * and nothing else: where a section lies follows from the header, so no offset can be wrong. Level 1 is sorted; so are
 * the continuations first[i] .. first[i + 1] of each entry i. An entry's count is at least the sum of its
 * continuations'; there are at most 2^32 - 1 tokens in the text, so no sum overflows. */
#ifndef GALLEY_NGRAM_FORMAT_H
#define GALLEY_NGRAM_FORMAT_H

#include "ngram/ngram.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are read from the map and written as they are");

#define NGRAM_MAGIC "GALLEYNG"
enum { NGRAM_VERSION = 1 };

struct ngram_header {
    char magic[8];
    uint32_t version;
    uint32_t max_n; /* 2 .. NGRAM_MAX */
    uint64_t fingerprint;
    uint32_t n_vocab; /* 1 .. INT32_MAX */
    uint32_t min_count;
    uint32_t n_token, n_doc;
    uint32_t n_gram[NGRAM_MAX]; /* 0 above max_n */
};
_Static_assert(sizeof(struct ngram_header) == 64, "no padding");

static inline int32_t ngram_tok_bytes(uint32_t n_vocab)
{
    return n_vocab <= 1u << 16 ? 2 : 4;
}

struct ngram_place { /* offsets from the start of the file */
    uint64_t tok, count, first, end;
};

/* Of level n (1-based) when it begins at `at`. Cannot overflow: six levels of 2^32 entries stay below 2^39 bytes. */
static inline struct ngram_place ngram_place_of(const struct ngram_header *h, uint32_t n, uint64_t at)
{
    uint64_t n_entry = h->n_gram[n - 1], tok_bytes = n_entry * (uint64_t)ngram_tok_bytes(h->n_vocab);
    struct ngram_place p = {.tok = at, .count = at + (tok_bytes + 3) / 4 * 4};
    p.first = p.count + 4 * n_entry;
    p.end = n < h->max_n ? p.first + 4 * (n_entry + 1) : p.first;
    return p;
}

static inline uint64_t ngram_file_bytes(const struct ngram_header *h)
{
    uint64_t at = sizeof *h;
    for (uint32_t n = 1; n <= h->max_n; n++)
        at = ngram_place_of(h, n, at).end;
    return at;
}

#endif
