/* The API keys that are accepted: those of --api-key, and those of --api-key-file, which SIGHUP rereads. Private to
 * server/. */
#ifndef GALLEY_KEYS_H
#define GALLEY_KEYS_H

#include <stdbool.h>

#include "err.h"
#include "versions.h"

struct keys { /* owner: main; the loops ask */
    struct versions sets;
};

/* `list`: keys with commas between, or NULL; `path`: one key a line, # begins a comment, or NULL. Neither, or both
 * empty: any key is accepted, and none. Called again it rereads. After an error, which names file and line, what was
 * accepted before still is. `n_key` (may be NULL) gets how many there are. */
int keys_load(struct keys *k, const char *list, const char *path, int *n_key, struct err *e);
/* `given` may be NULL: the client shows none. Any thread. The time it takes tells nothing of the keys. */
bool keys_accept(const struct keys *k, const char *given);
void keys_free(struct keys *k);

#endif
