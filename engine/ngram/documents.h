/* Files of text to documents of tokens, a piece at a time. Private to engine/ngram. */
#ifndef GALLEY_NGRAM_DOCUMENTS_H
#define GALLEY_NGRAM_DOCUMENTS_H

#include <stdbool.h>

#include "ngram/counter.h"
#include "tokenizer.h"

struct documents; /* feeds one counter */

/* `separator`: a line without line break, or NULL. All are borrowed until documents_close. -ERR_NOMEM; -ERR_INVALID:
 * the separator is empty, has a line break or is very long. */
int documents_open(struct documents **out, const struct tokenizer *t, struct ngram_counter *c, const char *separator,
                   bool parse_special, struct err *e);
void documents_close(struct documents *d); /* NULL is legal */

/* All documents of one file. progress(arg) is called after every piece of at most a MiB. -ERR_IO, -ERR_NOTFOUND,
 * -ERR_NOMEM, -ERR_INVALID. */
int documents_read(struct documents *d, const char *path, void (*progress)(void *arg), void *arg, struct err *e);

#endif
