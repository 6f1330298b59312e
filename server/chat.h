/* A conversation with a server, and its answers on stdout as they come. For `galley run`. Private to server/. */
#ifndef GALLEY_CHAT_H
#define GALLEY_CHAT_H

#include "client.h"
#include "interrupt.h"

enum { CHAT_FIELDS = 64 };

struct chat { /* owner: run.c */
    struct client *client;
    struct interrupt *in;
    const char *model;              /* named in requests; NULL: none is */
    const char *field[CHAT_FIELDS]; /* name, value, ...: they go into each request */
    int n_field;
    bool on_terminal; /* answers go to a terminal, which must not be told to do things */
    /* Own */
    json_t *messages;
    struct text_buf answer;
    char finish_reason[32];
};

int chat_open(struct chat *c, struct err *e);
void chat_close(struct chat *c);

/* "--max-tokens", or "max_tokens", is that field; what reads as JSON (a number, true, an object) is that, anything else
 * a word. */
int chat_add_field(struct chat *c, const char *name, const char *value, struct err *e);

/* Forgets what was said; `system` may be NULL. */
void chat_begin(struct chat *c, const char *system);

/* Asks, and prints the answer. Question and answer join the conversation, also when the answer was stopped
 * (-ERR_CANCELED); when there was none, neither does. */
int chat_ask(struct chat *c, const char *text, size_t n, struct err *e);

#endif
