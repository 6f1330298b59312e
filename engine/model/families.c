/* The families of models: what their names in files stand for. */
#include <string.h>

#include "model_impl.h"

static const struct family families[] = {
    {"llama", "llama", MODEL_EXPERT_SUM_1, FAMILY_PAIRS}, /* also Mistral and Mixtral as GGUF files call themselves */
    {"mistral", "mistral", 0, FAMILY_PAIRS | FAMILY_WINDOW},
    {NULL, "mixtral", MODEL_EXPERT_SUM_1, FAMILY_WINDOW},
    {"qwen2", "qwen2", 0, FAMILY_WINDOW | FAMILY_WINDOW_ASKED},
    {"qwen3", "qwen3", MODEL_QK_NORM, FAMILY_WINDOW | FAMILY_WINDOW_ASKED},
    {"qwen3moe", "qwen3_moe", MODEL_QK_NORM | MODEL_EXPERT_SUM_1, FAMILY_WINDOW | FAMILY_WINDOW_ASKED},
    {"smollm3", "smollm3", 0, FAMILY_PAIRS | FAMILY_WINDOW | FAMILY_WINDOW_ASKED, .unrotated_period = 4},
    {"gemma2", "gemma2", MODEL_GELU, FAMILY_GEMMA | FAMILY_WINDOW, .full_period = 2, .wide_layers = 46},
    {"gemma3", "gemma3_text", MODEL_GELU | MODEL_QK_NORM, FAMILY_GEMMA | FAMILY_WINDOW, .full_period = 6,
     .local_base = 10000, .wide_layers = 62},
    {"phi3", "phi3", 0, FAMILY_FUSED | FAMILY_WINDOW},
    {"olmo2", "olmo2", MODEL_QK_NORM_ALL, FAMILY_POST_NORM | FAMILY_NO_PRE_NORM},
    {"granite", "granite", 0, FAMILY_PAIRS},
    {"granitemoe", NULL, MODEL_EXPERT_SUM_1, FAMILY_PAIRS},
};
enum { N_FAMILY = sizeof families / sizeof *families };

static const char *name_of(const struct family *f, bool is_hf)
{
    return is_hf ? f->hf : f->gguf;
}

const struct family *family_find(struct slice name, bool is_hf, struct err *e)
{
    char known[256] = "";
    for (size_t i = 0; i < N_FAMILY; i++) {
        const char *own = name_of(&families[i], is_hf);
        if (own && slice_eq(name, own))
            return &families[i];
        if (own) {
            strncat(known, known[0] ? ", " : "", sizeof known - strlen(known) - 1);
            strncat(known, own, sizeof known - strlen(known) - 1);
        }
    }
    err_set(e, ERR_FORMAT, "%s '%.*s' is not one Galley knows (%s)",
            is_hf ? "config.json: model_type" : "general.architecture:", (int)(name.len < 64 ? name.len : 64), name.p,
            known);
    return NULL;
}
