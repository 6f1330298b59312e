/* Where workers run and where weights lie changes no bit of a result. The nodes are invented: a tree of files that says
 * that this machine's processors are on several. */
#include <check.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "random_plan.h"
#include "topology.h"
#include "../suite.h"

extern const struct backend_ops backend_cpu;

enum { V = 1500, N_TOK = 40, N_READ = 128 };

static char root[64];
static int n_cpu;

static void put(const char *name, int number, const char *file, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/sys/devices/system/node/%s%.*d%s", root, name, number >= 0,
             number >= 0 ? number : 0, file);
    for (char *c = path + strlen(root) + 1; *c; c++)
        if (*c == '/') {
            *c = 0;
            mkdir(path, 0700);
            *c = '/';
        }
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

/* The processors that this test may use, dealt to n nodes. */
static void invent_nodes(int n)
{
    struct cpu_mask m;
    char list[8][4096] = {{0}}, online[16];
    int at = 0;
    topology_allowed(&m);
    for (int cpu = 0; cpu < 512; cpu++)
        if (cpu_mask_has(&m, cpu)) {
            char *to = list[at++ % n];
            snprintf(to + strlen(to), 16, "%s%d", *to ? "," : "", cpu);
        }
    n_cpu = at;
    snprintf(online, sizeof online, "0-%d", n - 1);
    put("online", -1, "", online);
    for (int k = 0; k < n; k++)
        put("node", k, "/cpulist", list[k]);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void setup(void)
{
    strcpy(root, "/tmp/galley-node-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void teardown(void)
{
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Logits of a prompt's last row and of a token decoded after it. */
static void run(const struct tiny_model *t, struct backend_options opt, float out[2][N_READ], char device[128])
{
    struct rig g;
    struct kv_config kv = {.block_len = 16, .n_block = 4, .k_type = DT_F16, .v_type = DT_F16};
    int32_t tok[N_TOK + 1], bt[] = {0, 1, 2};
    rig_open_with(&g, &backend_cpu, t, &kv, opt);
    struct backend_stats st;
    g.ops->stats(g.m, &st);
    memcpy(device, st.device, sizeof st.device);
    for (int i = 0; i <= N_TOK; i++)
        tok[i] = 37 * i % V;
    for (int step = 0; step < 2; step++) {
        struct law law = neutral_law();
        plan_reset(&g.plan);
        plan_law(&g.plan, &law, NULL, 0, NULL, 0);
        rig_chain(&g, 0, step ? N_TOK : 0, step ? tok + N_TOK : tok, step ? 1 : N_TOK, bt, 3);
        int f = rig_read_logits(&g, step ? 0 : N_TOK - 1, N_READ);
        rig_step(&g);
        memcpy(out[step], g.out.f + f, sizeof out[step]);
    }
    rig_close(&g);
}

static const struct {
    int type;
    uint32_t flags;
} models[] = {{DT_F32, 0}, {DT_Q8_0, MODEL_NEOX_ROPE}, {DT_Q4_K, MODEL_QK_NORM}};

START_TEST(placement_changes_no_bit)
{
    struct rnd r = rnd_begin("placement_changes_no_bit", (uint64_t)_i + 1);
    struct tiny_model t;
    tiny_model_make(&t, &r, 2, 4, 2, 64, 256, 768, V, models[_i].flags, models[_i].type, 0, _i == 1);
    float plain[2][N_READ], got[2][N_READ];
    char device[128];
    cpu_set_t before, after;
    CPU_ZERO(&before);
    CPU_ZERO(&after);
    sched_getaffinity(0, sizeof before, &before);
    run(&t, (struct backend_options){.n_thread = 1}, plain, device);
    for (int n_node = 1; n_node <= 3; n_node++) {
        invent_nodes(n_node);
        for (int n_thread = 1; n_thread <= 5; n_thread++)
            for (int pin = PIN_NODE; pin <= PIN_OFF; pin++) {
                struct backend_options opt = {.n_thread = n_thread, .pin = (enum backend_pin)pin, .root = root};
                char want[32];
                int n = n_node < n_cpu ? n_node : n_cpu;
                run(&t, opt, got, device);
                ck_assert_mem_eq(plain, got, sizeof plain);
                snprintf(want, sizeof want, "on %d nodes", n < n_thread ? n : n_thread);
                if (n > 1 && n_thread > 1 && pin != PIN_OFF)
                    ck_assert_msg(strstr(device, want), "'%s' does not say '%s'", device, want);
                else
                    ck_assert_ptr_null(strstr(device, "node"));
            }
    }
    sched_getaffinity(0, sizeof after, &after);
    ck_assert_msg(CPU_EQUAL(&before, &after), "the caller has been left pinned");
    tiny_model_free(&t);
}
END_TEST

START_TEST(a_quota_limits_the_workers)
{
    struct backend *b;
    struct err e = {0};
    struct rnd r = rnd_begin("a_quota_limits_the_workers", 1);
    struct tiny_model t;
    float logits[2][N_READ];
    char device[128], path[256];
    tiny_model_make(&t, &r, 1, 2, 1, 32, 64, 96, V, 0, DT_F32, 0, 1);
    static const char *const folders[] = {"/proc", "/proc/self", "/sys", "/sys/fs", "/sys/fs/cgroup"};
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s%s", root, folders[i]);
        mkdir(path, 0700);
    }
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "w");
    fputs("0::/\n", f);
    fclose(f);
    snprintf(path, sizeof path, "%s/sys/fs/cgroup/cpu.max", root);
    f = fopen(path, "w");
    fputs("50000 100000\n", f);
    fclose(f);
    run(&t, (struct backend_options){.root = root}, logits, device);
    ck_assert_msg(strstr(device, ", 1 thread"), "%s", device);
    ck_assert_msg(!strstr(device, "threads"), "%s", device);
    run(&t, (struct backend_options){.root = root, .n_thread = 2}, logits, device); /* who asks for two gets two */
    ck_assert_msg(strstr(device, ", 2 threads"), "%s", device);
    ck_assert_int_eq(backend_cpu.open(&(struct backend_options){.n_thread = 100000}, &b, &e), -ERR_INVALID);
    tiny_model_free(&t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("pinned");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, placement_changes_no_bit, 0, sizeof models / sizeof *models);
    tcase_add_test(tc, a_quota_limits_the_workers);
    return suite_run(tc);
}
