#include "tls.h"

#include <gnutls/x509.h>
#include <string.h>
#include <time.h>

#include "file.h"
#include "log.h"
#include "mem.h"
#include "versions.h"

enum { MAX_PEM = 1 << 20, MAX_CHAIN = 16, MAX_KEY_ID = 64 };

struct pair { /* owner: `pairs` */
    struct version version;
    gnutls_pcert_st chain[MAX_CHAIN]; /* the server's own first */
    unsigned n_chain;
    gnutls_privkey_t key;
};

static void pair_free(struct version *v)
{
    struct pair *p = (struct pair *)v;
    for (unsigned i = 0; i < p->n_chain; i++)
        gnutls_pcert_deinit(&p->chain[i]);
    if (p->key)
        gnutls_privkey_deinit(p->key);
    mem_free(p);
}

static struct versions pairs = {.free = pair_free};

/* An expired certificate is served all the same: clients say so better than a server that is down. */
static void warn_expired(gnutls_x509_crt_t cert, const char *path)
{
    if (gnutls_x509_crt_get_expiration_time(cert) < time(NULL))
        log_line(LOG_WARN, "the certificate has expired", "file=\"%s\"", path);
}

static int read_chain(struct pair *p, const char *path, struct err *e)
{
    size_t n = 0;
    char *text = file_read(path, MAX_PEM, &n, e);
    if (!text)
        return -ERR_IO;
    gnutls_datum_t pem = {(unsigned char *)text, (unsigned)n};
    gnutls_x509_crt_t cert[MAX_CHAIN];
    unsigned n_cert = MAX_CHAIN;
    int rc = gnutls_x509_crt_list_import(cert, &n_cert, &pem, GNUTLS_X509_FMT_PEM,
                                         GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    mem_free(text);
    if (rc < 0)
        return err_set(e, ERR_INVALID, "%s: no PEM certificate: %s", path, gnutls_strerror(rc));
    rc = 0;
    warn_expired(cert[0], path);
    for (; !rc && p->n_chain < n_cert; p->n_chain += !rc)
        rc = gnutls_pcert_import_x509(&p->chain[p->n_chain], cert[p->n_chain], 0);
    for (unsigned i = 0; i < n_cert; i++)
        gnutls_x509_crt_deinit(cert[i]);
    return rc ? err_set(e, ERR_INVALID, "%s: %s", path, gnutls_strerror(rc)) : 0;
}

static int read_key(struct pair *p, const char *path, struct err *e)
{
    size_t n = 0;
    char *text = file_read(path, MAX_PEM, &n, e);
    if (!text)
        return -ERR_IO;
    gnutls_datum_t pem = {(unsigned char *)text, (unsigned)n};
    int rc = gnutls_privkey_init(&p->key);
    if (!rc)
        rc = gnutls_privkey_import_x509_raw(p->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_memset(text, 0, n);
    mem_free(text);
    if (rc == GNUTLS_E_DECRYPTION_FAILED)
        return err_set(e, ERR_INVALID, "%s: the key has a passphrase, and nobody is there to type it", path);
    return rc ? err_set(e, ERR_INVALID, "%s: no PEM private key: %s", path, gnutls_strerror(rc)) : 0;
}

static int check_match(const struct pair *p, const char *cert_path, const char *key_path, struct err *e)
{
    unsigned char id[2][MAX_KEY_ID];
    size_t n[2] = {MAX_KEY_ID, MAX_KEY_ID};
    gnutls_pubkey_t of_key;
    int rc = gnutls_pubkey_init(&of_key);
    if (rc)
        return err_set(e, ERR_NOMEM, "out of memory");
    rc = gnutls_pubkey_import_privkey(of_key, p->key, 0, 0);
    if (!rc)
        rc = gnutls_pubkey_get_key_id(of_key, 0, id[0], &n[0]);
    if (!rc)
        rc = gnutls_pubkey_get_key_id(p->chain[0].pubkey, 0, id[1], &n[1]);
    gnutls_pubkey_deinit(of_key);
    if (rc)
        return err_set(e, ERR_INVALID, "%s: %s", key_path, gnutls_strerror(rc));
    return n[0] == n[1] && !memcmp(id[0], id[1], n[0])
               ? 0
               : err_set(e, ERR_INVALID, "%s is not the key of the certificate in %s", key_path, cert_path);
}

int tls_load(const char *cert_path, const char *key_path, int64_t handshake_ns, struct err *e)
{
    struct pair *p = mem_calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = read_chain(p, cert_path, e);
    if (!rc)
        rc = read_key(p, key_path, e);
    if (!rc)
        rc = check_match(p, cert_path, key_path, e);
    if (rc)
        pair_free(&p->version);
    else
        versions_put(&pairs, &p->version, handshake_ns);
    return rc;
}

void tls_free(void)
{
    versions_free(&pairs);
}

int tls_retrieve(gnutls_session_t session, const gnutls_datum_t *ca, int n_ca, const gnutls_pk_algorithm_t *algo,
                 int n_algo, gnutls_pcert_st **chain, unsigned *n_chain, gnutls_privkey_t *key)
{
    struct pair *p = (struct pair *)atomic_load(&pairs.now);
    *chain = p->chain;
    *n_chain = p->n_chain;
    *key = p->key;
    return 0;
}
