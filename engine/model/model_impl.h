/* Within engine/model: how the parts of opening a model fit together.
 *
 *   model.c        opens a path, and what all kinds have in common
 *   model_gguf.c   the keys of a GGUF file
 *   model_hf.c     config.json and its neighbours in a Hugging Face directory
 *   tensors.c      the tensors of either, by the names each kind gives them */
#ifndef GALLEY_MODEL_IMPL_H
#define GALLEY_MODEL_IMPL_H

#include "model.h"

/* Sizes, flags, tokenizer, template, name if there is one; tensors are not looked at. */
int model_from_gguf(struct model *m, const char *path, struct err *e);
int model_from_hf(struct model *m, const char *dir, struct err *e);
/* Finds, checks and counts the tensors; desc.n_vocab becomes the table's rows. */
int model_take_tensors(struct model *m, struct err *e);
/* Whether heads, their sizes and what of them rotates fit together; sets attn_scale. */
int model_check_heads(struct model *m, struct err *e);

#endif
