/* Bytes of tokens to whole characters, as they arrive. The state is the beginning of one character: at most three bytes
 * that are a proper prefix of something well-formed. */
#include <string.h>

#include "text/utf8.h"
#include "tok_impl.h"

static const char replacement[3] = "\xef\xbf\xbd"; /* U+FFFD */

void detok_init(struct detok *d, const struct tokenizer *t, bool skip_control)
{
    *d = (struct detok){.tok = t, .skip_control = skip_control};
}

size_t detok_bound(const struct tokenizer *t)
{
    return sizeof replacement * (tok_max_piece_bytes(t) + 3); /* every byte bad, after three that were pending */
}

static size_t put_bad(char *out)
{
    memcpy(out, replacement, sizeof replacement);
    return sizeof replacement;
}

/* Adds bytes of `in` to the pending ones until these are a character or bad, or `in` ends. Returns how many were taken;
 * a byte that proves the pending ones bad is not taken. */
static size_t complete_pending(struct detok *d, struct slice in, char *out, size_t *n_out)
{
    size_t taken = 0, len;
    while (d->n_pend && taken < in.len) {
        d->pend[d->n_pend] = (uint8_t)in.p[taken];
        int32_t cp = utf8_next(d->pend, (size_t)d->n_pend + 1, &len);
        if (cp == UTF8_BAD) { /* the prefix was well-formed, so it is the maximal subpart */
            *n_out += put_bad(out + *n_out);
            d->n_pend = 0;
            return taken;
        }
        taken++;
        d->n_pend++;
        if (cp >= 0) {
            memcpy(out + *n_out, d->pend, d->n_pend);
            *n_out += d->n_pend;
            d->n_pend = 0;
        }
    }
    return taken;
}

size_t detok_push(struct detok *d, int32_t id, char *out)
{
    if (d->skip_control && tok_is_control(d->tok, id))
        return 0;
    struct slice in = tok_piece(d->tok, id);
    size_t n_out = 0, at = complete_pending(d, in, out, &n_out), len;
    while (at < in.len) {
        size_t n = utf8_valid_prefix(in.p + at, in.len - at);
        memcpy(out + n_out, in.p + at, n);
        n_out += n;
        at += n;
        if (at == in.len)
            break;
        if (utf8_next((const uint8_t *)in.p + at, in.len - at, &len) == UTF8_MORE) {
            d->n_pend = (uint8_t)(in.len - at);
            memcpy(d->pend, in.p + at, d->n_pend);
            break;
        }
        n_out += put_bad(out + n_out);
        at += len;
    }
    return n_out;
}

size_t detok_flush(struct detok *d, char *out)
{
    size_t n = d->n_pend ? put_bad(out) : 0;
    d->n_pend = 0;
    return n;
}
