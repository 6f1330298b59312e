#include "stop.h"

#include <string.h>

#include "err.h"

static void drop_emitted(struct stop_scan *s, int32_t n)
{
    memmove(s->held, s->held + n, (size_t)(s->n_held - n));
    s->n_held -= n;
}

static int32_t find(const struct stop_scan *s, const struct stop_set *set, int32_t *at)
{
    int32_t best = -1;
    for (int32_t i = 0; i < set->n; i++) {
        const char *hit = memmem(s->held, (size_t)s->n_held, set->text[i], (size_t)set->len[i]);
        if (!hit)
            continue;
        int32_t pos = (int32_t)(hit - s->held);
        if (best < 0 || pos < *at || (pos == *at && set->len[i] > set->len[best])) {
            best = i;
            *at = pos;
        }
    }
    return best;
}

/* Length of the longest end of the held text that begins a stop string. */
static int32_t pending(const struct stop_scan *s, const struct stop_set *set)
{
    int32_t longest = set->max_len - 1 < s->n_held ? set->max_len - 1 : s->n_held;
    for (int32_t n = longest; n > 0; n--)
        for (int32_t i = 0; i < set->n; i++)
            if (n < set->len[i] && !memcmp(s->held + s->n_held - n, set->text[i], (size_t)n))
                return n;
    return 0;
}

int32_t stop_push(struct stop_scan *s, const struct stop_set *set, const char *bytes, int32_t n, bool include,
                  const char **out, int32_t *n_out)
{
    if (set->n == 0) { /* nothing to look for: straight through */
        *out = bytes;
        *n_out = n;
        return -1;
    }
    BUG_ON(n > s->cap - s->n_held);
    memcpy(s->held + s->n_held, bytes, (size_t)n);
    s->n_held += n;

    int32_t at = 0, hit = find(s, set, &at), keep = hit < 0 ? pending(s, set) : 0;
    int32_t end = hit < 0 ? s->n_held - keep : at + (include ? set->len[hit] : 0);
    char *emit = s->held + s->cap; /* the second half of the buffer: what the caller reads while the first is reused */
    memcpy(emit, s->held, (size_t)end);
    *out = emit;
    *n_out = end;
    drop_emitted(s, hit < 0 ? end : s->n_held);
    return hit;
}

void stop_flush(struct stop_scan *s, const char **out, int32_t *n_out)
{
    *out = s->held;
    *n_out = s->n_held;
    s->n_held = 0;
}
