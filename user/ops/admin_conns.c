#include "ops/admin_conns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/admin_json.h"

enum {
	BLOCK_BYTES = 65536
};

struct conns_stream {
	struct conn_info *conns;
	size_t n, next;
	bool ended; /* the closing brackets were made */
	char *text; /* the piece being handed out */
	size_t text_len, text_at;
};

static void stream_free(void *cls)
{
	struct conns_stream *s = cls;

	free(s->conns);
	free(s->text);
	free(s);
}

/* Replaces the piece by the next one. False without memory. */
static bool next_piece(struct conns_stream *s)
{
	free(s->text);
	s->text = NULL;
	s->text_at = s->text_len = 0;

	if (s->next == s->n) {
		s->text = strdup("\n]}\n");
		s->ended = true;
	} else {
		json_t *o = admin_json_conn(&s->conns[s->next]);
		char *object = o ? json_dumps(o, JSON_COMPACT) : NULL;
		json_decref(o);
		if (!object || asprintf(&s->text, "%s\n%s", s->next ? "," : "", object) < 0)
			s->text = NULL;
		free(object);
		s->next++;
	}
	if (!s->text)
		return false;
	s->text_len = strlen(s->text);
	return true;
}

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct conns_stream *s = cls;
	size_t done = 0;

	while (done < max) {
		if (s->text_at == s->text_len) {
			if (s->ended)
				break;
			if (!next_piece(s))
				return MHD_CONTENT_READER_END_WITH_ERROR;
		}
		size_t n = s->text_len - s->text_at;
		if (n > max - done)
			n = max - done;
		memcpy(buf + done, s->text + s->text_at, n);
		s->text_at += n;
		done += n;
	}
	return done ? (ssize_t)done : MHD_CONTENT_READER_END_OF_STREAM;
}

struct MHD_Response *admin_conns_response(struct conn_info *conns, size_t n, size_t matched)
{
	struct conns_stream *s = calloc(1, sizeof(*s));
	if (!s) {
		free(conns);
		return NULL;
	}
	s->conns = conns;
	s->n = n;
	int len = asprintf(&s->text, "{\"matched\":%zu,\"conns\":[", matched);
	if (len < 0) {
		s->text = NULL;
		stream_free(s);
		return NULL;
	}
	s->text_len = (size_t)len;

	struct MHD_Response *r = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, BLOCK_BYTES, stream_read, s, stream_free);
	if (!r)
		stream_free(s);
	return r;
}
