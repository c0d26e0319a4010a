/* `tidegatectl token`: makes a token without asking a gateway. */
#ifndef TIDEGATECTL_TOKEN_H
#define TIDEGATECTL_TOKEN_H

#include <stdbool.h>

/* Prints a token for subject that is good for `expires` ("1h"), signed with the secret in a file.
 * The exit code. */
int token_print(const char *secret_file, const char *subject, const char *expires, bool json);

#endif
