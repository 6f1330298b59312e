/* SentencePiece's Unigram model (Kudo, arXiv:1804.10959): of all ways to cut a text into tokens, the likeliest, found
 * by Viterbi's algorithm over the places where a token may end. A character that is no token of its own counts as an
 * unknown one, far less likely than any token, as the tokenizers library has it. */
#include <math.h>

#include "mem.h"
#include "text/utf8.h"
#include "tok_impl.h"

static int reserve(struct lattice *l, size_t n)
{
    if (n <= l->cap)
        return 0;
    lattice_free(l);
    l->log_prob = mem_alloc(n * sizeof *l->log_prob);
    l->from = mem_alloc(n * sizeof *l->from);
    l->to = mem_alloc(n * sizeof *l->to);
    l->cap = l->log_prob && l->from && l->to ? n : 0;
    return l->cap ? 0 : -ERR_NOMEM;
}

void lattice_free(struct lattice *l)
{
    mem_free(l->log_prob);
    mem_free(l->from);
    mem_free(l->to);
    *l = (struct lattice){0};
}

/* The token text[from, to) ends the likeliest way to `to`, of equal ones the first that is offered. */
static void offer(struct lattice *l, size_t from, size_t to, double log_prob, bool is_unknown)
{
    double whole = l->log_prob[from] + log_prob;
    if (!(whole > l->log_prob[to]))
        return;
    l->log_prob[to] = whole;
    l->from[to] = is_unknown ? -(int32_t)from - 1 : (int32_t)from;
}

static void offer_tokens(const struct vocab *v, struct slice text, struct lattice *l, size_t from)
{
    size_t most = text.len - from < v->max_bytes ? text.len - from : v->max_bytes, first = 0, len;
    bool is_known = false;
    for (size_t n = 0; n < most; n += len) {
        utf8_next((const uint8_t *)text.p + from + n, text.len - from - n, &len);
        int32_t id = n + len <= most ? vocab_find(v, text.p + from, n + len) : -1;
        first = n ? first : len;
        is_known |= id >= 0 && n == 0;
        if (id >= 0)
            offer(l, from, from + n + len, v->log_prob[id], false);
    }
    if (!is_known)
        offer(l, from, from + (first ? first : 1), v->unk_log_prob, true);
}

/* Unknown characters that stand together are one token, or all their bytes. */
int unigram_text(const struct vocab *v, int32_t unk, struct slice text, struct lattice *l, struct sink *out)
{
    if (reserve(l, text.len + 1))
        return -ERR_NOMEM;
    l->log_prob[0] = 0;
    for (size_t i = 1; i <= text.len; i++)
        l->log_prob[i] = -INFINITY;
    for (size_t at = 0; at < text.len; at++)
        if (l->log_prob[at] > -INFINITY) /* a character begins here */
            offer_tokens(v, text, l, at);
    for (int32_t to = (int32_t)text.len, from; to > 0; to = from) {
        bool is_unknown = l->from[to] < 0;
        from = is_unknown ? -l->from[to] - 1 : l->from[to];
        l->to[from] = is_unknown ? -to : to;
    }
    for (int32_t at = 0, end; at < (int32_t)text.len; at = end) {
        end = l->to[at] < 0 ? -l->to[at] : l->to[at];
        while (l->to[at] < 0 && end < (int32_t)text.len && l->to[end] < 0)
            end = -l->to[end];
        spm_put(v, unk, text.p + at, (size_t)(end - at), out);
    }
    return 0;
}
