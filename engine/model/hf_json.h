/* The JSON files of a Hugging Face directory. Private to engine/. */
#ifndef GALLEY_HF_JSON_H
#define GALLEY_HF_JSON_H

#include <jansson.h>

#include "err.h"

/* DIR/NAME as an object, the caller's to json_decref. *out is NULL, and that is no error, when there is no such file.
 * -ERR_FORMAT names file, line and reason. */
int hf_json(const char *dir, const char *name, json_t **out, struct err *e);
/* DIR/NAME as text, freed with mem_free; NULL: there is no such file, or it cannot be read. */
char *hf_text(const char *dir, const char *name);
/* Token ids of a value that is a number or a list of them; fills up to `cap`, returns how many. */
int hf_ids(const json_t *v, int32_t *out, int cap);

enum { HF_MAX_EOS = 32 };

#endif
