/* libFuzzer: whatever the bytes, the n-gram store refuses them and says why, or every lookup stays within them. */
#include <stdint.h>
#include <stdlib.h>

#include "ngram/ngram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Goes down the store by the first token it finds at each depth, and asks for what may not be there on the way. */
static void look_up(const struct ngram *g)
{
    enum { N_TOK = 64 };
    int32_t ctx[NGRAM_MAX] = {0}, tok[N_TOK];
    uint32_t count[N_TOK];
    for (int32_t i = 0; i < N_TOK; i++)
        tok[i] = i < 60 ? i : (const int32_t[]){-1, g->n_vocab - 1, g->n_vocab, INT32_MAX}[i - 60];
    for (int32_t n = 0; n <= NGRAM_MAX; n++) {
        uint64_t sum = 0;
        uint32_t total = ngram_counts(g, ctx, n, tok, N_TOK, count);
        for (int32_t i = 0; i < N_TOK; i++)
            sum += i < 60 ? count[i] : 0;
        if (sum > total)
            abort();
        for (int32_t i = N_TOK - 1; n < NGRAM_MAX && i >= 0; i--)
            if (count[i])
                ctx[n] = tok[i];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ngram *g;
    struct err e = {0};
    if (ngram_open_mem(&g, data, size, "fuzz", NULL, &e)) {
        if (!e.msg[0])
            abort(); /* a refusal always says why */
        return 0;
    }
    look_up(g);
    ngram_close(g);
    return 0;
}
