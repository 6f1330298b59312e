#include "ngram_build.h"

#include "model/gguf.h"
#include "ngram/documents.h"
#include "ngram/write.h"

_Static_assert((int)NGRAM_BUILD_MAX_N == (int)NGRAM_MAX && (int)NGRAM_BUILD_MAX_MIN_COUNT == (int)NGRAM_MAX_MIN_COUNT,
               "the public header says what there is");

struct build { /* one call of ngram_build */
    const struct ngram_build_options *o;
    struct tokenizer *t;
    struct ngram_counter *counter;
    struct documents *documents;
    struct ngram_build_report *report;
};

static int check_options(const struct ngram_build_options *o, struct err *e)
{
    if (o->min_count < 1 || o->min_count > NGRAM_MAX_MIN_COUNT)
        return err_set(e, ERR_INVALID, "the least count is 1 to %d", NGRAM_MAX_MIN_COUNT);
    if (o->n_text < 1)
        return err_set(e, ERR_INVALID, "no text to build from");
    return 0;
}

static int load_tokenizer(struct build *b, struct err *e)
{
    struct gguf *g = NULL;
    int rc = gguf_open(&g, b->o->model_path, e);
    if (!rc)
        rc = tok_from_gguf(&b->t, g, e);
    gguf_close(g);
    return rc;
}

static void report_progress(void *arg)
{
    struct build *b = arg;
    b->report->n_token = ngram_counter_n_token(b->counter);
    b->report->n_doc = ngram_counter_n_doc(b->counter);
    b->o->progress(b->report);
}

static int read_texts(struct build *b, struct err *e)
{
    int rc = 0;
    for (int32_t i = 0; !rc && i < b->o->n_text; i++)
        rc = documents_read(b->documents, b->o->text_path[i], b->o->progress ? report_progress : NULL, b, e);
    return rc ? rc : ngram_counter_finish(b->counter, e);
}

static int write_store(struct build *b, struct err *e)
{
    struct ngram_header h;
    const struct ngram_write_options w = {.n_vocab = tok_n_vocab(b->t),
                                          .max_n = b->o->max_n,
                                          .fingerprint = ngram_fingerprint(b->t),
                                          .min_count = b->o->min_count,
                                          .max_bytes = b->o->max_bytes};
    int rc = ngram_write(b->o->out_path, b->counter, &w, &h, e);
    if (rc)
        return rc;
    struct ngram_build_report *r = b->report;
    *r = (struct ngram_build_report){
        .n_token = h.n_token, .n_doc = h.n_doc, .min_count = h.min_count, .file_bytes = ngram_file_bytes(&h)};
    for (int32_t n = 0; n < NGRAM_MAX; n++)
        r->n_gram[n] = h.n_gram[n];
    return 0;
}

int ngram_build(const struct ngram_build_options *o, struct ngram_build_report *report, struct err *e)
{
    struct build b = {.o = o, .report = report};
    *report = (struct ngram_build_report){0};
    int rc = check_options(o, e);
    if (!rc)
        rc = load_tokenizer(&b, e);
    if (!rc)
        rc = ngram_counter_open(&b.counter, o->out_path, o->max_n, o->memory_bytes, e);
    if (!rc)
        rc = documents_open(&b.documents, b.t, b.counter, o->separator, o->parse_special, e);
    if (!rc)
        rc = read_texts(&b, e);
    if (!rc)
        rc = write_store(&b, e);
    documents_close(b.documents);
    ngram_counter_close(b.counter);
    tok_free(b.t);
    return rc;
}
