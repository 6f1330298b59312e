/* The repack cache: what comes from it is, bit for bit, what packing gives; whatever is wrong with a file is noticed;
 * and nothing that can go wrong with it stops a model from loading. */
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utime.h>

#include "log.h"
#include "random_plan.h"
#include "../suite.h"

extern const struct backend_ops backend_cpu;

enum { V = 2000, N_READ = 128, HEAD_BYTES = 88, PAGE = 4096 };

static struct tiny_model model, other; /* other: the same shapes with other weights */
static char dir[64], path[128];
static struct weight_identity identity;

static void ignore(void *arg, const void *data, size_t bytes)
{
}

static void identify(void *arg, struct weight_identity *out)
{
    *out = identity;
}

static const struct weight_source source = {
    .want = ignore, .done = ignore, .identify = identify, .name = "tiny-0123456789abcdef"};

static void setup(void)
{
    struct rnd r = rnd_begin("repack cache", 1);
    log_set_level(LOG_ERROR);
    tiny_model_make(&model, &r, 3, 4, 2, 64, 256, 1024, V, 0, DT_Q8_0, 1, 0);
    tiny_model_make(&other, &r, 3, 4, 2, 64, 256, 1024, V, 0, DT_Q8_0, 1, 0);
    model.w.source = other.w.source = &source;
    identity = (struct weight_identity){.size_bytes = 1, .modified_ns = 2, .head_hash = 3, .sample_hash = 4};
    strcpy(dir, "/tmp/galley-pack-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/%s.pack", dir, source.name);
}

static int remove_all(void)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *f; (f = readdir(d));)
        if (f->d_name[0] != '.') {
            unlinkat(dirfd(d), f->d_name, 0);
            n++;
        }
    closedir(d);
    return n;
}

static void teardown(void)
{
    remove_all();
    rmdir(dir);
    tiny_model_free(&model);
    tiny_model_free(&other);
}

struct loaded {
    float logit[N_READ];
    bool cached;
};

static const int32_t tokens[] = {5, 1999, 77, 1024, 5, 600};

static struct loaded load_in(const struct tiny_model *t, const char *where, int n_thread)
{
    struct loaded l;
    struct rig g;
    struct kv_config kv = {.block_len = 16, .n_block = 4, .k_type = DT_F16, .v_type = DT_F16};
    rig_open_with(&g, &backend_cpu, t, &kv, (struct backend_options){.n_thread = n_thread, .repack_cache = where});
    plan_reset(&g.plan);
    struct law law = neutral_law();
    plan_law(&g.plan, &law, NULL, 0, NULL, 0);
    rig_chain(&g, 0, 0, tokens, 6, (int32_t[]){0}, 1);
    int f = rig_read_logits(&g, 5, N_READ);
    rig_step(&g);
    memcpy(l.logit, g.out.f + f, sizeof l.logit);
    struct backend_stats st;
    g.ops->stats(g.m, &st);
    l.cached = st.weights_cached;
    rig_close(&g);
    return l;
}

static struct loaded load(const struct tiny_model *t)
{
    return load_in(t, dir, 2);
}

static void assert_same(const struct loaded *a, const struct loaded *b)
{
    ck_assert_mem_eq(a->logit, b->logit, sizeof a->logit);
}

static void assert_differ(const struct loaded *a, const struct loaded *b)
{
    ck_assert_mem_ne(a->logit, b->logit, sizeof a->logit);
}

/* ---- The file as bytes ---- */

static char *slurp(size_t *n)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    *n = (size_t)st.st_size;
    char *p = malloc(*n);
    ck_assert_int_eq(read(fd, p, *n), (ssize_t)*n);
    close(fd);
    return p;
}

static void spill(const char *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, p, n), (ssize_t)n);
    close(fd);
}

/* The file as it is now must not be used: packing `other` must give other's logits, and put things right. */
static void assert_ignored(const struct loaded *others, const char *what, size_t at)
{
    struct loaded l = load(&other);
    ck_assert_msg(!l.cached, "%s %zu: used all the same", what, at);
    assert_same(&l, others);
    l = load(&model);
    ck_assert_msg(l.cached, "%s %zu: not replaced", what, at);
    assert_same(&l, others);
}

/* ---- Tests ---- */

START_TEST(the_cache_gives_the_same_bits)
{
    struct loaded plain = load_in(&model, NULL, 2), wrote = load(&model), others = load_in(&other, NULL, 2);
    ck_assert(!plain.cached && !wrote.cached);
    assert_differ(&plain, &others);
    for (int n_thread = 1; n_thread <= 3; n_thread++) {
        struct loaded read = load_in(&other, dir, n_thread); /* whose weights are not even looked at */
        ck_assert(read.cached);
        assert_same(&plain, &read);
    }
    assert_same(&plain, &wrote);
    ck_assert_int_eq(remove_all(), 1);
}
END_TEST

START_TEST(a_cut_or_longer_file_is_ignored)
{
    size_t n, entries = HEAD_BYTES + 32 * (3 * 14 - 2 * 3 + 3); /* the layers have no q_norm, k_norm */
    load(&model);
    char *whole = slurp(&n);
    struct loaded others = load_in(&other, NULL, 2);
    const size_t cut[] = {0,           1,        8,           HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1,
                          entries - 1, entries,  entries + 3, PAGE - 1,       PAGE,       PAGE + 1,
                          n / 3,       n - PAGE, n - 4096,    n - 1,          n + 1};
    whole = realloc(whole, n + 1);
    whole[n] = 0;
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        spill(whole, cut[i]);
        assert_ignored(&others, "cut to", cut[i]);
    }
    free(whole);
}
END_TEST

/* Every byte of the head and the table, one bit each, and some of the data; the gap before the data means nothing. */
START_TEST(a_flipped_bit_is_noticed)
{
    size_t n, piece = 1 << 20;
    load(&model);
    char *whole = slurp(&n);
    struct loaded others = load_in(&other, NULL, 1);
    size_t n_piece = (n - PAGE + piece - 1) / piece, front = HEAD_BYTES + 32 * (3 * 14 - 2 * 3 + 3) + 8 * n_piece;
    for (size_t at = 0; at < n; at += at < HEAD_BYTES ? 1 : at < front ? 13 : at < PAGE ? PAGE - at : n / 50) {
        if (at >= front && at < PAGE)
            continue;
        whole[at] ^= (char)(1 << at % 8);
        spill(whole, n);
        whole[at] ^= (char)(1 << at % 8);
        struct loaded l = load_in(&other, dir, 1);
        ck_assert_msg(!l.cached, "byte %zu of %zu", at, n);
        assert_same(&l, &others);
    }
    free(whole);
}
END_TEST

START_TEST(another_model_is_noticed)
{
    const struct weight_identity was = identity;
    struct loaded others = load_in(&other, NULL, 2);
    const struct weight_identity changed[] = {
        {was.size_bytes + 1, was.modified_ns, was.head_hash, was.sample_hash},
        {was.size_bytes, was.modified_ns + 1, was.head_hash, was.sample_hash},
        {was.size_bytes, was.modified_ns, was.head_hash ^ 1, was.sample_hash},
        {was.size_bytes, was.modified_ns, was.head_hash, was.sample_hash ^ 1},
    };
    for (int i = 0; i < 4; i++) {
        identity = was;
        remove_all();
        load(&model);
        identity = changed[i];
        assert_ignored(&others, "identity", (size_t)i);
    }
}
END_TEST

/* The same file, asked for fewer words: its tensors are others. */
START_TEST(other_shapes_are_noticed)
{
    struct tiny_model fewer = model;
    load(&model);
    fewer.w.tok_embd.n_row = fewer.w.out.n_row = V - 100; /* the words that are left out are not asked about */
    struct loaded l = load(&fewer), plain = load_in(&fewer, NULL, 2);
    ck_assert(!l.cached);
    assert_same(&l, &plain);
}
END_TEST

START_TEST(a_folder_that_cannot_be_written_is_no_error)
{
    struct loaded plain = load_in(&model, NULL, 2), l;
    char long_name[8192];
    memset(long_name, 'x', sizeof long_name);
    long_name[0] = '/';
    long_name[sizeof long_name - 1] = 0;
    const char *bad[] = {"/nonexistent/folder", "/dev/null", "/proc/self", long_name};
    for (int i = 0; i < 4; i++) {
        l = load_in(&model, bad[i], 2);
        ck_assert(!l.cached);
        assert_same(&plain, &l);
    }
    mkdir(path, 0700); /* a folder where the file should be */
    l = load(&model);
    ck_assert(!l.cached);
    assert_same(&plain, &l);
    rmdir(path);
    ck_assert_int_eq(remove_all(), 0);
}
END_TEST

START_TEST(a_full_disk_leaves_nothing_behind)
{
    struct loaded plain = load_in(&model, NULL, 2);
    struct rlimit was, small = {.rlim_cur = 100000};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &was);
    small.rlim_max = was.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct loaded l = load(&model);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_same(&plain, &l);
    ck_assert_int_eq(remove_all(), 0);
}
END_TEST

START_TEST(orphans_are_removed_and_writers_are_not_disturbed)
{
    char orphan[200], live[200];
    snprintf(orphan, sizeof orphan, "%s.tmp-0000000000000001", path);
    snprintf(live, sizeof live, "%s.tmp-0000000000000002", path);
    close(open(orphan, O_CREAT | O_WRONLY, 0600));
    close(open(live, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(utime(orphan, &(struct utimbuf){.modtime = 1000}), 0);
    load(&model);
    ck_assert_int_eq(access(orphan, F_OK), -1);
    ck_assert_int_eq(access(live, F_OK), 0);
}
END_TEST

/* Several start at once, again and again, while somebody removes and damages the file: each gets the right weights. */
START_TEST(processes_do_not_get_in_each_others_way)
{
    enum { N_PROCESS = 4, N_LOAD = 12 };
    struct loaded plain = load_in(&model, NULL, 1);
    pid_t pid[N_PROCESS];
    for (int p = 0; p < N_PROCESS; p++) {
        pid[p] = fork();
        ck_assert_int_ge(pid[p], 0);
        if (pid[p])
            continue;
        for (int i = 0; i < N_LOAD; i++) {
            struct loaded l = load_in(&model, dir, 1 + p % 2);
            if (memcmp(l.logit, plain.logit, sizeof l.logit))
                _exit(1);
            if (i % N_PROCESS == p && truncate(path, 5000 * i))
                _exit(2);
            else if (i % N_PROCESS == p + 1)
                unlink(path);
        }
        _exit(0);
    }
    for (int p = 0; p < N_PROCESS; p++) {
        int status;
        waitpid(pid[p], &status, 0);
        ck_assert_msg(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2), "process %d: %x", p,
                      status);
    }
    load(&model);
    struct loaded last = load(&other);
    ck_assert(last.cached);
    assert_same(&plain, &last);
    ck_assert_int_eq(remove_all(), 1);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("pack_cache");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_cache_gives_the_same_bits);
    tcase_add_test(tc, a_cut_or_longer_file_is_ignored);
    tcase_add_test(tc, a_flipped_bit_is_noticed);
    tcase_add_test(tc, another_model_is_noticed);
    tcase_add_test(tc, other_shapes_are_noticed);
    tcase_add_test(tc, a_folder_that_cannot_be_written_is_no_error);
    tcase_add_test(tc, a_full_disk_leaves_nothing_behind);
    tcase_add_test(tc, orphans_are_removed_and_writers_are_not_disturbed);
    tcase_add_test(tc, processes_do_not_get_in_each_others_way);
    return suite_run(tc);
}
