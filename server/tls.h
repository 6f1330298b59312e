/* The certificate of https and its private key, which SIGHUP rereads: handshakes that begin afterwards get the new one,
 * connections that stand go on as they are. Over GnuTLS, as libmicrohttpd is. Private to server/. */
#ifndef GALLEY_TLS_H
#define GALLEY_TLS_H

#include <gnutls/abstract.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"

/* Reads a PEM certificate (its chain behind it) and its PEM key; called again it rereads. After an error, which names
 * the file, the pair that stood still stands. `handshake_ns`: no handshake takes longer, so that a pair may be freed so
 * long after it was replaced. One pair a process: GnuTLS asks for it without saying on whose behalf. */
int tls_load(const char *cert_path, const char *key_path, int64_t handshake_ns, struct err *e);
void tls_free(void);

/* For MHD_OPTION_HTTPS_CERT_CALLBACK. Any thread. */
int tls_retrieve(gnutls_session_t session, const gnutls_datum_t *ca, int n_ca, const gnutls_pk_algorithm_t *algo,
                 int n_algo, gnutls_pcert_st **chain, unsigned *n_chain, gnutls_privkey_t *key);

/* What is spoken: TLS 1.2 and 1.3. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

#endif
