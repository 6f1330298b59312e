/* What a model file holds, for a person: `galley inspect`. Public: the server's command line calls it. */
#ifndef GALLEY_INSPECT_H
#define GALLEY_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "err.h"

struct inspect_want { /* besides the summary */
    bool metadata, tensors, chat_template;
};

/* Writes to `out` what the GGUF file or Hugging Face directory holds: what it is, what serving it takes in memory, or
 * why Galley cannot serve it. Errors are of files that cannot be read as either kind. */
int model_inspect(const char *path, const struct inspect_want *want, FILE *out, struct err *e);

#endif
