/* The grammar of the configuration's words: names, paths, hosts, origins, tokens. Pure; any thread.
 *
 * Each returns NULL when the text is right, else what is wrong with it, a static text that begins
 * with a verb
 * ("must begin with '/'").
 */
#ifndef TIDEGATE_OPS_CONFIG_TEXT_H
#define TIDEGATE_OPS_CONFIG_TEXT_H

enum {
	CONFIG_NAME_MAX =
		63, /* instance, listener and upstream names; labels in metrics and queries */
	CONFIG_USER_MAX = 32,  /* useradd(8) */
	CONFIG_HOST_MAX = 253, /* RFC 1123 2.1, RFC 1035 2.3.4 */
	CONFIG_KID_MAX = 128,
	CONFIG_CLAIM_MAX = 255, /* a claim's name, an audience, an issuer */
	CONFIG_FILE_PATH_MAX = 4095,
	CONFIG_TOKEN_MAX = 128, /* subprotocols and header names; a 101 response has to hold one */
};

/* Letters, digits, '-', '_'. */
const char *config_text_name(const char *s);
/* An account name: a name that may contain dots too. */
const char *config_text_user(const char *s);
/* An absolute request path without query, at most TG_RAW_PATH_MAX bytes of printable ASCII. */
const char *config_text_path(const char *s);
/* The same, or a prefix: "/" followed by '*', or "/chat/" followed by '*'. */
const char *config_text_route_path(const char *s);
/* A host name, "*.example.com", an IPv4 address or "[IPv6]"; no port. */
const char *config_text_host(const char *s);
/* "*", or scheme://host[:port] as browsers send it in Origin (RFC 6454 6.1). */
const char *config_text_origin(const char *s);
/* The id of a key: printable ASCII. */
const char *config_text_kid(const char *s);
/* The name of a claim, or what one is to be: not empty. */
const char *config_text_claim(const char *s);
/* The absolute path of a file. */
const char *config_text_file(const char *s);
/* The name of a network interface. */
const char *config_text_interface(const char *s);
/* An HTTP token (RFC 9110 5.6.2). */
const char *config_text_token(const char *s);

#endif
