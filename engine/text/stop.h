/* Stop strings over streamed text. Holds back what may still become a stop string, lets the rest through. Owner: one
 * sequence; private to engine/. */
#ifndef GALLEY_STOP_H
#define GALLEY_STOP_H

#include <stdbool.h>
#include <stdint.h>

struct stop_set {            /* immutable, shared by the sequences of a request */
    const char *const *text; /* [n] NUL-terminated, none empty */
    const int32_t *len;      /* [n] bytes */
    int32_t n, max_len;
};

struct stop_scan {
    char *held;          /* [2 * cap]: text not let through yet, then a copy of what the last call let through */
    int32_t n_held, cap; /* cap: stop_scan_cap */
};

/* The cap for at most max_push bytes at once. */
static inline int32_t stop_scan_cap(const struct stop_set *set, int32_t max_push)
{
    return set->max_len + max_push;
}

/* Takes n bytes of whole code points. *out (n_out bytes, borrowed until the next call) is what may be emitted now.
 * Returns the index of the stop string that was found, or -1: then *out ends before it (or after it, with `include`).
 * Of several matches the one that begins first wins, and of those the longest. */
int32_t stop_push(struct stop_scan *s, const struct stop_set *set, const char *bytes, int32_t n, bool include,
                  const char **out, int32_t *n_out);
/* No more text will come: everything held is let through. */
void stop_flush(struct stop_scan *s, const char **out, int32_t *n_out);

#endif
