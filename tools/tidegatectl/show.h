/* The admin surface's JSON as text for people, on stdout. False when it is not of the form
 * expected; nothing useful was printed then. */
#ifndef TIDEGATECTL_SHOW_H
#define TIDEGATECTL_SHOW_H

#include <jansson.h>
#include <stdbool.h>

bool show_status(const json_t *answer);
bool show_workers(const json_t *answer);
bool show_conns(const json_t *answer);
bool show_links(const json_t *answer);
bool show_topics(const json_t *answer);
bool show_publish(const json_t *answer);
bool show_kick(const json_t *answer);
bool show_drain(const json_t *answer);
bool show_gate(const json_t *answer);
bool show_gate_word(const json_t *answer);
bool show_sample(const json_t *answer);
bool show_sources(const json_t *answer);
bool show_why(const json_t *answer);
bool show_list(const json_t *answer);
bool show_list_change(const json_t *answer);

#endif
