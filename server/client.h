/* Talking to a Galley server, or to any that speaks the OpenAI API, over libcurl: `galley run`, `galley health`.
 * Private to server/. */
#ifndef GALLEY_CLIENT_H
#define GALLEY_CLIENT_H

#include <jansson.h>
#include <stdbool.h>

#include "err.h"
#include "text_buf.h"

struct client_options {      /* borrowed strings */
    const char *url;         /* "http://127.0.0.1:8080"; a path after it is kept, as is a final /v1 */
    const char *unix_socket; /* NULL: the URL's own host */
    const char *api_key;     /* NULL: none */
    const char *ca_file;     /* whom to believe on https; NULL: the system's */
    bool insecure;           /* on https believe anybody */
};

struct client;

int client_open(const struct client_options *o, struct client **out, struct err *e);
void client_close(struct client *c); /* NULL is legal */

/* GET: the status, or -ERR_IO when there was no answer within the time; `body` (may be NULL) gets what came. */
int client_get(struct client *c, const char *path, int timeout_s, struct text_buf *body, struct err *e);

/* POST of a request with "stream": true. on_event gets each event's JSON (borrowed) until [DONE]. `stop_fd` readable
 * ends the answer: -ERR_CANCELED, and nothing is read from it. -ERR_INVALID: the server's own error, in its words.
 * -ERR_IO: no server, or it went away. */
int client_stream(struct client *c, const char *path, const json_t *request, int stop_fd,
                  void (*on_event)(void *arg, const json_t *event), void *arg, struct err *e);

#endif
