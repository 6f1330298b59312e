/* Where did the last tokens stand before? An index over a sequence's tokens that finds the longest earlier occurrence
 * of its end, and among equally long ones the most recent: chains of places with the same hash of `min_match` tokens,
 * as in LZ77, each hit confirmed token by token. Adding a token is O(1); a search looks at HISTORY_MAX_CHAIN places,
 * newest first. Private to engine/. */
#ifndef GALLEY_HISTORY_H
#define GALLEY_HISTORY_H

#include <stddef.h>
#include <stdint.h>

enum {
    HISTORY_MAX_TAKE = 1 << 14, /* tokens a search takes in: long prompts are taken in over several steps */
    HISTORY_MAX_CHAIN = 128,
    HISTORY_MAX_MATCH = 64,
    HISTORY_MAX_GRAM = 16
};

struct history_text { /* three stretches of tokens read as one; borrowed */
    const int32_t *part[3];
    int32_t n_part[3], n;
};

static inline int32_t history_tok(const struct history_text *t, int32_t i)
{
    for (int p = 0; p < 2; i -= t->n_part[p++])
        if (i < t->n_part[p])
            return t->part[p][i];
    return t->part[2][i];
}

struct history {
    int32_t *head; /* [1 << bits] newest place of each hash, -1: none. A place is the token after the gram */
    int32_t *prev; /* [cap] the next older place with the same hash, -1: none */
    int32_t bits, cap, min_match;
    int32_t n_indexed; /* places below this are in */
};

/* Bytes of memory that history_begin takes for texts of up to `cap` tokens. */
size_t history_bytes(int32_t cap);
/* min_match: 1 to HISTORY_MAX_GRAM tokens. `mem` is the caller's and must outlive h. */
/* (libedit, which the server links, has a function called history_init.) */
void history_begin(struct history *h, void *mem, int32_t cap, int32_t min_match);

struct history_match {
    int32_t at;  /* the token that followed; 0: no match */
    int32_t len; /* tokens before it that equal the text's end, at most HISTORY_MAX_MATCH */
};
/* Takes in what is new of the text and looks for its end in what stands before. */
struct history_match history_find(struct history *h, const struct history_text *t);

/* How many tokens before place a equal those before place b (a < b), at most `max`. */
int32_t history_common(const struct history_text *t, int32_t a, int32_t b, int32_t max);

#endif
