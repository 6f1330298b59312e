#include "inspect.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "gguf.h"
#include "model.h"
#include "safetensors.h"

#define MIB (1024.0 * 1024.0)

enum { MAX_SHOWN = 8, MAX_TEXT = 120, MAX_TYPE = 64 };

/* ---- Metadata ---- */

static void print_text(FILE *out, struct slice s)
{
    fputc('"', out);
    for (size_t i = 0; i < s.len && i < MAX_TEXT; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '\n')
            fputs("\\n", out);
        else if (c < 32 || c == 127)
            fprintf(out, "\\x%02x", c);
        else
            fputc(c, out);
    }
    fprintf(out, s.len > MAX_TEXT ? "\" ... (%zu bytes)" : "\"", s.len);
}

/* A whole number of kv's width, sign and all. */
static int64_t signed_value(const struct gguf_kv *kv)
{
    int8_t b;
    int16_t h;
    int32_t w;
    int64_t d;
    switch (kv->val_bytes) {
    case 1:
        return memcpy(&b, kv->val, 1), b;
    case 2:
        return memcpy(&h, kv->val, 2), h;
    case 4:
        return memcpy(&w, kv->val, 4), w;
    default:
        return memcpy(&d, kv->val, 8), d;
    }
}

static void print_scalar(FILE *out, const struct gguf *g, const struct gguf_kv *kv)
{
    char key[GGUF_MAX_NAME + 1];
    uint64_t u;
    double f64;
    float f;
    bool flag;
    struct slice s;
    snprintf(key, sizeof key, "%.*s", (int)kv->key.len, kv->key.p);
    if (kv->type == GGUF_STR && !gguf_get_str(g, key, &s, NULL))
        print_text(out, s);
    else if (kv->type == GGUF_BOOL && !gguf_get_bool(g, key, &flag, NULL))
        fputs(flag ? "true" : "false", out);
    else if (kv->type == GGUF_F32 && !gguf_get_f32(g, key, &f, NULL))
        fprintf(out, "%g", (double)f);
    else if (kv->type == GGUF_F64)
        fprintf(out, "%g", (memcpy(&f64, kv->val, sizeof f64), f64));
    else if (!gguf_get_u64(g, key, &u, NULL))
        fprintf(out, "%" PRIu64, u);
    else
        fprintf(out, "%" PRId64, signed_value(kv));
}

static void print_metadata(FILE *out, const struct gguf *g)
{
    fprintf(out, "\nmetadata: %" PRId64 " keys\n", g->n_kv);
    for (int64_t i = 0; i < g->n_kv; i++) {
        const struct gguf_kv *kv = &g->kv[i];
        fprintf(out, "  %.*s = ", (int)kv->key.len, kv->key.p);
        if (kv->type == GGUF_ARR)
            fprintf(out, "[%" PRIu64 " elements]", kv->n);
        else
            print_scalar(out, g, kv);
        fputc('\n', out);
    }
}

/* ---- Tensors ---- */

static const char *type_name(int type, char buf[16])
{
    const struct dtype_info *info = dtype_info(type);
    snprintf(buf, 16, "type %d", type);
    return info ? info->name : buf;
}

/* Rows like "Q8_0      197 tensors   1,255.3 MiB", the largest share first. */
struct share {
    char name[16];
    int64_t n;
    double bytes;
};

static int add_share(struct share *s, int n, const char *name, size_t bytes)
{
    int at = 0;
    while (at < n && strcmp(s[at].name, name))
        at++;
    if (at == MAX_TYPE)
        return n;
    snprintf(s[at].name, sizeof s[at].name, "%s", name);
    s[at].n++;
    s[at].bytes += (double)bytes;
    return at == n ? n + 1 : n;
}

static void print_shares(FILE *out, struct share *s, int n)
{
    fputs("\ntensors\n", out);
    for (int left = n; left > 0; left--) {
        int best = 0;
        for (int i = 1; i < n; i++)
            if (s[i].bytes > s[best].bytes)
                best = i;
        fprintf(out, "  %-8s %5" PRId64 "   %10.1f MiB\n", s[best].name, s[best].n, s[best].bytes / MIB);
        s[best].bytes = -1;
    }
}

static void print_gguf_tensors(FILE *out, const struct gguf *g, bool all)
{
    struct share s[MAX_TYPE] = {0};
    int n = 0;
    char buf[16];
    for (int64_t i = 0; i < g->n_tensor; i++)
        n = add_share(s, n, type_name(g->tensor[i].type, buf), g->tensor[i].size_bytes);
    print_shares(out, s, n);
    for (int64_t i = 0; all && i < g->n_tensor; i++) {
        const struct gguf_tensor *t = &g->tensor[i];
        fprintf(out, "  %-40.*s %-6s", (int)t->name.len, t->name.p, type_name(t->type, buf));
        for (int d = 0; d < t->n_dim; d++)
            fprintf(out, "%s%" PRId64, d ? " x " : " ", t->dim[d]);
        fputc('\n', out);
    }
}

static void print_st_tensors(FILE *out, const struct safetensors *st, bool all)
{
    struct share s[MAX_TYPE] = {0};
    int n = 0;
    for (int32_t i = 0; i < st->n_tensor; i++)
        n = add_share(s, n, st->tensor[i].type_name, st->tensor[i].size_bytes);
    print_shares(out, s, n);
    for (int32_t i = 0; all && i < st->n_tensor; i++) {
        const struct st_tensor *t = &st->tensor[i];
        fprintf(out, "  %-60s %-6s", t->name, t->type_name);
        for (int d = 0; d < t->n_dim; d++)
            fprintf(out, "%s%" PRId64, d ? " x " : " ", t->dim[d]);
        fputc('\n', out);
    }
}

/* ---- The model ---- */

static void print_memory(FILE *out, const struct model *m)
{
    static const int kinds[] = {DT_F16, DT_Q8_0};
    const struct model_desc *d = &m->desc;
    fprintf(out, "\nmemory\n  weights  %10.1f MiB\n", m->weight_bytes / MIB);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        double row = d->head_dim % dtype_info(kinds[i])->block_len ? 2.0 * d->head_dim
                                                                   : (double)dtype_row_bytes(kinds[i], d->head_dim);
        double token = 2.0 * d->n_layer * d->n_head_kv * row;
        fprintf(out, "  KV cache %10.1f MiB for 1,000 tokens in %s, %.1f for all %d\n", 1000 * token / MIB,
                dtype_info(kinds[i])->name, d->n_ctx_train * token / MIB, d->n_ctx_train);
    }
}

static void print_model(FILE *out, const struct model *m)
{
    const struct model_desc *d = &m->desc;
    const struct sampling_defaults *s = &m->info.sampling;
    int32_t n_eog;
    const int32_t *eog = tok_eog(m->tok, &n_eog);
    fprintf(out, "name         %s\narchitecture %s, %.1fM parameters, mostly %s\n", m->info.name, m->info.architecture,
            (double)m->info.n_param / 1e6, m->info.quant);
    fprintf(out, "layers       %d of width %d, feed-forward %d", d->n_layer, d->n_embd, d->n_ff);
    if (d->n_expert)
        fprintf(out, ", %d of %d experts of %d", d->n_expert_used, d->n_expert, d->n_ff_expert);
    fprintf(out, "\nattention    %d heads of %d, %d of keys and values", d->n_head, d->head_dim, d->n_head_kv);
    int32_t n_other = 0, window = d->sliding_window ? d->sliding_window : d->sliding_window_1;
    for (int32_t l = 0; l < d->n_layer; l++)
        n_other += d->layer_kind[l];
    if (window && d->sliding_window == d->sliding_window_1)
        n_other = 0;
    if (window)
        fprintf(out, ", a window of %d", window);
    if (window && n_other)
        fprintf(out, " in %d layers", n_other);
    fprintf(out, "\ncontext      %d tokens\nvocabulary   %d tokens; an answer ends with", d->n_ctx_train, d->n_vocab);
    for (int32_t i = 0; i < n_eog && i < MAX_SHOWN; i++) {
        struct slice name = tok_piece(m->tok, eog[i]);
        fprintf(out, " %d ", eog[i]);
        print_text(out, name);
    }
    fprintf(out, "\nchat         %s\n", m->chat_template ? "has a template (--template shows it)" : "no template");
    for (int32_t i = 0; i < m->n_exit; i++)
        fprintf(out, "%s%d%s", i ? ", " : "early exit   after ", m->exit_layer[i],
                i + 1 < m->n_exit ? "" : " layers\n");
    if (s->has_temperature || s->has_top_p || s->has_top_k || s->has_min_p || s->has_repetition_penalty) {
        fputs("sampling    ", out);
        if (s->has_temperature)
            fprintf(out, " temperature %g", (double)s->temperature);
        if (s->has_top_p)
            fprintf(out, " top_p %g", (double)s->top_p);
        if (s->has_top_k)
            fprintf(out, " top_k %d", s->top_k);
        if (s->has_min_p)
            fprintf(out, " min_p %g", (double)s->min_p);
        if (s->has_repetition_penalty)
            fprintf(out, " repetition_penalty %g", (double)s->repetition_penalty);
        fputs(", unless a request says otherwise\n", out);
    }
    print_memory(out, m);
}

/* A file that cannot be served is still worth looking at. */
static int inspect_unserved(const char *path, const struct inspect_want *want, FILE *out, const struct err *why,
                            struct err *e)
{
    struct gguf *g;
    struct stat st;
    if (!stat(path, &st) && S_ISDIR(st.st_mode))
        return err_set(e, why->code, "%s", why->msg);
    int rc = gguf_open(&g, path, e);
    if (rc)
        return rc;
    fprintf(out, "cannot be served: %s\n", why->msg);
    print_metadata(out, g);
    print_gguf_tensors(out, g, want->tensors);
    gguf_close(g);
    return 0;
}

int model_inspect(const char *path, const struct inspect_want *want, FILE *out, struct err *e)
{
    struct model m;
    struct err why = {0};
    if (model_open(path, &m, &why))
        return inspect_unserved(path, want, out, &why, e);
    print_model(out, &m);
    if (m.gguf)
        print_gguf_tensors(out, m.gguf, want->tensors);
    else
        print_st_tensors(out, m.st, want->tensors);
    if (m.gguf && want->metadata)
        print_metadata(out, m.gguf);
    if (want->chat_template && m.chat_template)
        fprintf(out, "\nchat template\n%s\n", m.chat_template);
    model_close(&m);
    return 0;
}
