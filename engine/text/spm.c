/* SentencePiece's BPE: a text begins as its characters; of all neighbours that together are a token, those whose token
 * has the highest score are joined (of equal ones the leftmost), until none is left. Hugging Face's files have a list
 * of merges instead of scores, the earliest of which is joined. What then is no token falls back to its bytes. Symbols
 * are numbered by the byte they begin at. */
#include "text/utf8.h"
#include "tok_impl.h"

static size_t symbol_len(const struct symbols *s, int32_t i, size_t n)
{
    return (s->next[i] < 0 ? n : (size_t)s->next[i]) - (size_t)i;
}

static void pair_update(const struct vocab *v, struct slice text, struct symbols *s, int32_t i)
{
    int32_t right = s->next[i], rank = NO_RANK;
    size_t len = right < 0 ? 0 : (size_t)(right - i) + symbol_len(s, right, text.len);
    if (right >= 0 && v->merge) {
        const struct merge_slot *m = vocab_merge(v, s->id[i], s->id[right]);
        rank = m ? m->rank : NO_RANK;
    } else if (right >= 0 && len <= v->max_bytes) {
        int32_t id = vocab_find(v, text.p + i, len);
        rank = id < 0 ? NO_RANK : v->rank[id];
    }
    symbols_offer(s, i, rank);
}

void spm_put(const struct vocab *v, int32_t unk, const char *p, size_t len, struct sink *out)
{
    int32_t id = vocab_find(v, p, len);
    if (id >= 0) {
        sink_put(out, id);
        return;
    }
    for (size_t i = 0; i < len; i++)
        if (v->byte_id[(uint8_t)p[i]] < 0) {
            if (unk >= 0)
                sink_put(out, unk);
            return;
        }
    for (size_t i = 0; i < len; i++)
        sink_put(out, v->byte_id[(uint8_t)p[i]]);
}

int spm_text(const struct vocab *v, int32_t unk, struct slice text, struct symbols *s, struct sink *out)
{
    if (!text.len)
        return 0;
    if (symbols_reserve(s, text.len))
        return -ERR_NOMEM;
    int32_t before = -1;
    for (size_t at = 0, len; at < text.len; at += len) {
        utf8_next((const uint8_t *)text.p + at, text.len - at, &len);
        s->prev[at] = before;
        s->next[at] = at + len < text.len ? (int32_t)(at + len) : -1;
        s->id[at] = v->merge ? vocab_find(v, text.p + at, len) : -1;
        before = (int32_t)at;
    }
    for (int32_t i = 0; i >= 0; i = s->next[i])
        pair_update(v, text, s, i);
    for (int32_t i; (i = symbols_best(s)) >= 0;) {
        if (v->merge)
            s->id[i] = vocab_merge(v, s->id[i], s->id[s->next[i]])->id;
        symbols_join(s, i);
        pair_update(v, text, s, i);
        if (s->prev[i] >= 0)
            pair_update(v, text, s, s->prev[i]);
    }
    for (int32_t i = 0; i >= 0; i = s->next[i])
        spm_put(v, unk, text.p + i, symbol_len(s, i, text.len), out);
    return 0;
}
