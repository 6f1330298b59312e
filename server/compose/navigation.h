/* What in-context navigation remembers and writes (autoregressive.md, section 12): which first tokens were tried, which
 * items were found, and how the list of them stands in the prompt. Pure; the requests are navigate.c's. Private to
 * server/compose.
 */
#ifndef GALLEY_COMPOSE_NAVIGATION_H
#define GALLEY_COMPOSE_NAVIGATION_H

#include "slice.h"
#include "text_buf.h"

struct navigation { /* owner: one answer being navigated to; zeroed at first */
    struct text_buf ids, tokens,
        items; /* tried ids; their texts; items found, folded: as records of length and bytes */
    int32_t n_item;
    bool failed; /* out of memory: what was to be remembered is lost */
};

struct nav_token {
    int32_t id;
    struct slice text;
};

void nav_free(struct navigation *v);
/* The first `most` of the ranked tokens that were not tried yet, and are from now on: their places in `ranked`. Tokens
 * are the same when their ids are, or their texts without the spaces around them. */
int32_t nav_pick(struct navigation *v, const struct nav_token *ranked, int32_t n, int32_t most, int32_t *picked);
/* An item; true: it is new. Items are the same when they differ in spaces and in the case of a to z only. */
bool nav_find(struct navigation *v, const char *item, size_t n);

/* The item within a text: up to the first `stop`, trimmed. *ended: the stop was there. */
struct slice nav_cut(const char *text, size_t n, const char *stop, bool *ended);

/* The list: `1. "first"`, a line each, and the beginning of the line to come: `2. "`. An item stands between `stop` and
 * what opens it: the same quote or the bracket's other half; nothing when stop is none of these (`1. first;`). What an
 * item has of line ends and other control characters becomes a space; a quote or backslash of its own gets a backslash:
 * it cannot end its line. */
void nav_write_line(struct text_buf *b, int32_t number, struct slice item, const char *stop);
void nav_write_opening(struct text_buf *b, int32_t number, const char *stop);

#endif
