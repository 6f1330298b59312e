/* GET /metrics in Prometheus' text format: own names, and vLLM's beside them, so that dashboards, load tools and the
 * Gateway API inference extension read this server as they read that one. */
#include <string.h>

#include "decoding.h"

static void head(struct text_buf *b, const char *name, const char *type, const char *help)
{
    tb_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(struct text_buf *b, const char *name, const char *type, const char *help, const char *labels,
                double value)
{
    head(b, name, type, help);
    tb_printf(b, "%s{%s} ", name, labels);
    tb_double(b, value);
    tb_str(b, "\n");
}

static void write_histogram(struct text_buf *b, const char *name, const char *help, const char *labels,
                            const struct histogram *h)
{
    uint64_t total = 0;
    head(b, name, "histogram", help);
    for (int32_t i = 0; i < h->n_bucket; i++) {
        total += h->count[i];
        tb_printf(b, "%s_bucket{%s,le=\"%g\"} %llu\n", name, labels, h->bound[i], (unsigned long long)total);
    }
    total += h->count[h->n_bucket];
    tb_printf(b, "%s_bucket{%s,le=\"+Inf\"} %llu\n", name, labels, (unsigned long long)total);
    tb_printf(b, "%s_sum{%s} ", name, labels);
    tb_double(b, h->sum);
    tb_printf(b, "\n%s_count{%s} %llu\n", name, labels, (unsigned long long)total);
}

static void write_finished(struct text_buf *b, const char *name, const char *labels, const struct engine_metrics *m)
{
    static const struct {
        const char *reason;
        enum finish_reason from;
    } row[] = {{"stop", FINISH_STOP},
               {"length", FINISH_LENGTH},
               {"abort", FINISH_CANCELED},
               {"deadline", FINISH_DEADLINE},
               {"error", FINISH_ERROR}};
    head(b, name, "counter", "Finished sequences by reason.");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        tb_printf(b, "%s{%s,finished_reason=\"%s\"} %llu\n", name, labels, row[i].reason,
                  (unsigned long long)m->n_finished[row[i].from]);
}

/* Of the steps of `auto`, those without a draft come from none. */
static const char *source_label(int32_t source)
{
    return source == DRAFT_SOURCE_AUTO ? "none" : decoding_source_name((enum draft_source)source);
}

static void write_by_source(struct text_buf *b, const char *name, const char *help, const char *labels,
                            enum draft_source from, const uint64_t *n)
{
    head(b, name, "counter", help);
    for (int32_t i = (int32_t)from; i < N_DRAFT_SOURCE; i++)
        tb_printf(b, "%s{%s,source=\"%s\"} %llu\n", name, labels, source_label(i), (unsigned long long)n[i]);
}

static void write_doubles_by_source(struct text_buf *b, const char *name, const char *help, const char *labels,
                                    const double *value)
{
    head(b, name, "counter", help);
    for (int32_t i = DRAFT_SOURCE_COPY; i < N_DRAFT_SOURCE; i++) {
        tb_printf(b, "%s{%s,source=\"%s\"} ", name, labels, source_label(i));
        tb_double(b, value[i]);
        tb_str(b, "\n");
    }
}

/* What drafts are expected to bring, and what they bring. */
static void write_drafts(struct text_buf *b, const char *labels, const struct engine_metrics *m)
{
    write_by_source(b, "galley_auto_steps_total", "Steps of sequences decoded by auto, by the draft it chose.", labels,
                    DRAFT_SOURCE_AUTO, m->n_auto_step);
    write_doubles_by_source(b, "galley_auto_asking_seconds_total", "Time that auto took to make drafts.", labels,
                            m->auto_asking_s);
    write_by_source(b, "galley_draft_tokens_total", "Tokens drafted, by where they came from.", labels,
                    DRAFT_SOURCE_COPY, m->n_drafted_by);
    write_doubles_by_source(b, "galley_draft_expected_tokens_total", "Of them how many were expected to come true.",
                            labels, m->expected_by);
    write_by_source(b, "galley_draft_accepted_tokens_total", "Of them those that came true.", labels, DRAFT_SOURCE_COPY,
                    m->n_accepted_by);
    one(b, "galley_draft_gain_count", "counter", "Steps with drafts.", labels, (double)m->n_gain);
    one(b, "galley_draft_gain_expected_sum", "counter",
        "Tokens a second of such a step, as expected, against the same step without drafts, summed.", labels,
        m->gain_expected);
    one(b, "galley_draft_gain_sum", "counter", "The same as it was measured.", labels, m->gain);
}

static void write_engine(struct text_buf *b, const char *labels, const struct engine_metrics *m)
{
    double usage = m->n_block ? (double)m->n_block_used / m->n_block : 0;
    one(b, "vllm:num_requests_running", "gauge", "Sequences that run.", labels, m->n_running);
    one(b, "vllm:num_requests_waiting", "gauge", "Sequences that wait.", labels, m->n_waiting);
    one(b, "vllm:kv_cache_usage_perc", "gauge", "KV blocks in use, 1 is all.", labels, usage);
    one(b, "vllm:gpu_cache_usage_perc", "gauge", "KV blocks in use, the older name.", labels, usage);
    one(b, "vllm:prompt_tokens_total", "counter", "Prompt tokens of finished requests.", labels, m->prompt_tokens.sum);
    one(b, "vllm:generation_tokens_total", "counter", "Tokens generated.", labels, (double)m->n_output_tokens);
    one(b, "vllm:num_preemptions_total", "counter", "Sequences preempted and recomputed.", labels,
        (double)m->n_preempted);
    one(b, "vllm:prefix_cache_queries_total", "counter", "Tokens looked for in the prefix cache.", labels,
        (double)m->n_cache_query_tokens);
    one(b, "vllm:prefix_cache_hits_total", "counter", "Tokens found there.", labels, (double)m->n_cache_hit_tokens);
    write_finished(b, "vllm:request_success_total", labels, m);
    write_histogram(b, "vllm:time_to_first_token_seconds", "From submission to the first token.", labels,
                    &m->first_token_s);
    write_histogram(b, "vllm:inter_token_latency_seconds", "Between tokens of a sequence.", labels, &m->inter_token_s);
    write_histogram(b, "vllm:time_per_output_token_seconds", "The same, under the older name.", labels,
                    &m->inter_token_s);
    write_histogram(b, "vllm:e2e_request_latency_seconds", "From submission to the end.", labels, &m->total_s);
    write_histogram(b, "vllm:request_queue_time_seconds", "From submission to the first step.", labels, &m->queue_s);
    write_histogram(b, "vllm:request_prompt_tokens", "Prompt tokens a request.", labels, &m->prompt_tokens);
    write_histogram(b, "vllm:request_generation_tokens", "Generated tokens a sequence.", labels, &m->output_tokens);
    write_histogram(b, "vllm:iteration_tokens_total", "Rows a step.", labels, &m->step_rows);

    one(b, "vllm:spec_decode_num_drafts_total", "counter", "Drafts verified.", labels, (double)m->n_drafts);
    one(b, "vllm:spec_decode_num_draft_tokens_total", "counter", "Tokens drafted.", labels, (double)m->n_draft_tokens);
    one(b, "vllm:spec_decode_num_accepted_tokens_total", "counter", "Drafted tokens that came true.", labels,
        (double)m->n_accepted_tokens);
    head(b, "vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter", "The same by place in the draft.");
    for (int32_t i = 0; i < DECODING_POSITIONS && m->n_accepted_at[i]; i++)
        tb_printf(b, "vllm:spec_decode_num_accepted_tokens_per_pos_total{%s,position=\"%d\"} %llu\n", labels, i,
                  (unsigned long long)m->n_accepted_at[i]);

    write_drafts(b, labels, m);
    one(b, "galley_trigram_searches_total", "counter", "Searches of trigram tables.", labels,
        (double)m->n_trigram_search);
    one(b, "galley_trigram_search_seconds_total", "counter", "Time they took.", labels, m->trigram_search_s);
    one(b, "galley_spec_optimum_count", "counter", "Steps of named verifiers compared with the best possible.", labels,
        (double)m->n_optimum);
    one(b, "galley_spec_optimum_sum", "counter", "Best possible chance of keeping the first draft, summed.", labels,
        m->optimum);
    one(b, "galley_spec_accepted_sum", "counter", "First drafts kept in those steps.", labels, m->optimum_accepted);
    one(b, "galley_kv_slots_moved_total", "counter", "KV slots copied because a draft's branch came true.", labels,
        (double)m->n_moved);
    one(b, "galley_steps_total", "counter", "Steps run.", labels, (double)m->n_steps);
    one(b, "galley_requests_rejected_total", "counter", "Requests refused: queue full or draining.", labels,
        (double)m->n_rejected);
    one(b, "galley_kv_blocks", "gauge", "KV blocks in all.", labels, m->n_block);
    one(b, "galley_kv_blocks_used", "gauge", "KV blocks held by sequences.", labels, m->n_block_used);
    one(b, "galley_kv_blocks_cached", "gauge", "KV blocks kept for equal prompts.", labels, m->n_block_cached);
    one(b, "galley_kv_block_tokens", "gauge", "Tokens a KV block.", labels, m->block_len);
    head(b, "vllm:cache_config_info", "gauge", "The KV cache's shape.");
    tb_printf(b, "vllm:cache_config_info{%s,block_size=\"%d\",num_gpu_blocks=\"%d\"} 1\n", labels, m->block_len,
              m->n_block);
}

void api_metrics(struct call *c)
{
    struct server *srv = c->loop->srv;
    struct text_buf b = {0}, name = {0};
    char labels[640];
    tb_json_str(&name, server_model_name(srv));
    snprintf(labels, sizeof labels, "model_name=%.*s,engine=\"0\"", (int)name.n, name.p ? name.p : "\"\"");
    tb_free(&name);
    head(&b, "galley_http_responses_total", "counter", "HTTP responses by status class.");
    for (int i = 2; i < 6; i++)
        tb_printf(&b, "galley_http_responses_total{class=\"%dxx\"} %llu\n", i,
                  (unsigned long long)atomic_load(&srv->n_http[i]));
    head(&b, "galley_http_connections", "gauge", "Open connections.");
    tb_printf(&b, "galley_http_connections %d\n", atomic_load(&srv->n_conn));
    if (atomic_load(&srv->state) != SERVER_LOADING) {
        struct engine_metrics m;
        engine_metrics(srv->eng, &m);
        write_engine(&b, labels, &m);
    }
    call_reply(c, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}
