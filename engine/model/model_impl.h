/* Within engine/model: how the parts of opening a model fit together.
 *
 *   model.c        opens a path, and what all kinds have in common
 *   families.c     the families of models, as a table
 *   model_gguf.c   the keys of a GGUF file
 *   model_hf.c     config.json and its neighbours in a Hugging Face directory
 *   hf_fp8.c       its quantization_config, and the scales of FP8 tensors
 *   rope.c         rotation frequencies from the numbers of either
 *   tensors.c      the tensors of either, by the names each kind gives them */
#ifndef GALLEY_MODEL_IMPL_H
#define GALLEY_MODEL_IMPL_H

#include "model.h"
#include "rope.h"

enum family_trait { /* how a family's files are to be read; what its models compute is in model_desc */
                    FAMILY_PAIRS = 1 << 0,        /* GGUF files have heads whose adjacent elements rotate together */
                    FAMILY_WINDOW = 1 << 1,       /* sliding_window counts in config.json */
                    FAMILY_WINDOW_ASKED = 1 << 2, /* but only with use_sliding_window */
                    FAMILY_FUSED = 1 << 3,        /* query, key and value are one tensor; gate and up are another */
                    FAMILY_NO_PRE_NORM = 1 << 4,  /* nothing is normed before attention and feed-forward */
                    FAMILY_POST_NORM = 1 << 5,    /* what they give is */
                    FAMILY_NORM_LESS_1 = 1 << 6,  /* Hugging Face files hold the weights of norms less 1 */
                    FAMILY_EMBD_SQRT = 1 << 7,    /* embeddings are multiplied by the root of their width */
                    FAMILY_GEMMA = FAMILY_POST_NORM | FAMILY_NORM_LESS_1 | FAMILY_EMBD_SQRT,
};

struct family {
    const char *gguf, *hf;    /* its names in files; NULL: no such files */
    uint32_t flags, traits;   /* enum model_flag, enum family_trait */
    int32_t full_period;      /* the last of so many layers sees everything, the others a window; 0: all are alike */
    int32_t unrotated_period; /* the last of so many layers is not rotated; 0: all are */
    double local_base;        /* RoPE base of layers with a window; 0: that of the others */
    int32_t wide_layers;      /* GGUF: models of so many layers scale scores by n_embd / n_head, not by head_dim */
};

/* NULL and an error that names the known ones. */
const struct family *family_find(struct slice name, bool is_hf, struct err *e);

/* Sizes, flags, tokenizer, template, name if there is one; tensors are not looked at. */
int model_from_gguf(struct model *m, const char *path, struct err *e);
int model_from_hf(struct model *m, const char *dir, struct err *e);
/* Finds, checks and counts the tensors; desc.n_vocab becomes the table's rows. */
int model_take_tensors(struct model *m, struct err *e);
struct json_t;
struct safetensors;
/* -ERR_FORMAT: config.json says that the weights are quantised in a way that Galley does not know, and which. */
int model_check_quantization(const struct json_t *config, struct err *e);
/* Those of the F8_E4M3 tensor `name`. -ERR_FORMAT: it has none, or none that fit. */
int model_find_scales(const struct safetensors *st, const char *name, const struct tensor *codes,
                      struct fp8_scales *out, struct err *e);
int32_t model_count_activation_scales(const struct safetensors *st);
/* What a description begins with: nothing scaled, capped or windowed. */
void model_begin(struct model *m, const struct family *f);
/* What the files say of sampling, NAN where nothing. */
struct sampling_said {
    double temperature, top_p, min_p, top_k, repetition_penalty;
};
/* Keeps what a request could say as well; the rest is as if not there. */
void model_set_sampling(struct model *m, const struct sampling_said *said);
/* Whether heads, their sizes and what of them rotates fit together; sets attn_scale. */
int model_check_heads(struct model *m, struct err *e);
/* Layers l with slides[l] see a window, the others all; `global` and `local` are their rotations (local NULL: the
 * same). Then those without a rotation, of which `unrotated` may be NULL. */
int model_set_layers(struct model *m, const uint8_t *slides, int32_t window, const struct rope_spec *global,
                     const struct rope_spec *local, const uint8_t *unrotated, struct err *e);

#endif
