#include "ops/admin_gate.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "kern/bpf_gate.h"
#include "net/admission.h"

static const char *const list_names[GATE_LISTS] = {[GATE_ALLOW] = "allow", [GATE_DENY] = "deny"};

static json_t *percent(int v)
{
	return v == MEMORY_UNKNOWN ? json_null() : json_integer(v);
}

/* Every refusal and admission by its reason, those that are not 0. */
static int add_verdicts(json_t *o, const struct admin_backend *b)
{
	json_t *made = json_object(), *observed = json_object();
	struct tg_verdict_count kernel[TG_VERDICT_COUNT];
	int err = 0;

	for (unsigned v = admission_verdict_from(0); v < TG_VERDICT_COUNT;
		v = admission_verdict_from(v + 1)) {
		const char *name = admission_verdict_name(v);
		uint64_t n = 0, seen = 0;

		for (unsigned i = 0; i < b->n_workers; i++) {
			n += b->stats(b->ctx, i)->verdicts[v];
			seen += b->stats(b->ctx, i)->verdicts_observed[v];
		}
		if (n)
			err |= json_object_set_new(made, name, json_integer((json_int_t)n));
		if (seen)
			err |= json_object_set_new(observed, name, json_integer((json_int_t)seen));
	}
	if (b->verdicts && !b->verdicts(b->ctx, kernel)) {
		for (unsigned v = 0; v < TG_VERDICT_COUNT; v++) {
			char name[64];

			snprintf(name, sizeof name, "%s.%s",
				bpf_verdict_program((enum tg_verdict)v),
				bpf_verdict_name((enum tg_verdict)v));
			if (kernel[v].packets)
				err |= json_object_set_new(
					made, name, json_integer((json_int_t)kernel[v].packets));
			if (kernel[v].observed)
				err |= json_object_set_new(observed, name,
					json_integer((json_int_t)kernel[v].observed));
		}
	}
	err |= json_object_set_new(o, "verdicts", made);
	err |= json_object_set_new(o, "observed", observed);
	return err;
}

json_t *admin_json_gate(const struct gate_info *g)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "mode", g->mode, "where",
		g->where ? g->where : "", "state",
		g->on ? governor_state_name(g->gate.state) : "off", "reason",
		governor_reason_name(g->gate.reason), "word", governor_word_name(g->word), "rate",
		(json_int_t)g->gate.rate, "reserve_rate", (json_int_t)g->gate.reserve_rate,
		"unserved", (json_int_t)g->unserved);
	int err = 0;

	if (!o)
		return NULL;
	if (g->gate.rate >= GOVERNOR_RATE_MAX)
		err |= json_object_set_new(o, "rate", json_null()); /* no limit */
	err |= json_object_set_new(o, "permits",
		g->gate.permits >= GOVERNOR_PERMITS_MAX ? json_null()
							: json_integer(g->gate.permits));
	err |= json_object_set_new(o, "delay_us", json_integer((json_int_t)(g->delay_ns / 1000)));
	err |= json_object_set_new(o, "target_us", json_integer((json_int_t)(g->target_ns / 1000)));
	err |= json_object_set_new(o, "handshakes_per_s", json_integer((json_int_t)g->goodput));
	err |= json_object_set_new(o, "cuts", json_integer((json_int_t)g->cuts));
	err |= json_object_set_new(o, "shuts", json_integer((json_int_t)g->shuts));
	err |= json_object_set_new(o, "holds", json_integer((json_int_t)g->holds));
	err |= json_object_set_new(o, "memory_percent",
		json_pack("{s:o, s:o, s:o}", "cgroup", percent(g->memory.cgroup), "tcp",
			percent(g->memory.tcp), "machine", percent(g->memory.machine)));
	if (!err)
		return o;
	json_decref(o);
	return NULL;
}

ADMIN_ANSWER(admin_gate_show)
{
	const struct admin_backend *b = &api->backend;
	struct gate_info info;
	json_t *o;

	b->gate(b->ctx, &info);
	o = admin_json_gate(&info);
	if (o && add_verdicts(o, b)) {
		json_decref(o);
		o = NULL;
	}
	return admin_json_answer(MHD_HTTP_OK, o, ret);
}

static unsigned is_off(struct MHD_Response **ret)
{
	return admin_error(MHD_HTTP_CONFLICT, "admission is off (admission.mode)", ret);
}

ADMIN_ANSWER(admin_gate_set)
{
	const struct admin_query *q = &rq->query;
	bool has_rate = q->given & ADMIN_KEY_RATE;
	char who[ADMIN_WHO_MAX];
	int r;

	if (!(q->given & ADMIN_KEY_WORD))
		return admin_error(MHD_HTTP_BAD_REQUEST, "give word", ret);
	if (has_rate != (q->word == GATE_WORD_RATE))
		return admin_error(MHD_HTTP_BAD_REQUEST,
			has_rate ? "only the word rate takes a rate" : "the word rate needs rate",
			ret);
	r = api->backend.gate_say(api->backend.ctx, q->word, q->rate);
	if (r == -EOPNOTSUPP)
		return is_off(ret);
	if (r < 0)
		return admin_backend_error(r, ret);
	if (has_rate)
		log_info("admin", "%s set the gate to %u connections/s", admin_who(rq, who),
			q->rate);
	else
		log_info("admin", "%s set the gate to %s", admin_who(rq, who),
			governor_word_name(q->word));
	return admin_json_answer(
		MHD_HTTP_OK, json_pack("{s:s}", "word", governor_word_name(q->word)), ret);
}

static unsigned not_in_kernel(struct MHD_Response **ret)
{
	return admin_error(
		MHD_HTTP_CONFLICT, "admission is not in the kernel (admission.mode)", ret);
}

static json_t *source_json(const struct source_info *s)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:o, s:f, s:I}", "prefix", s->prefix,
		"open", (json_int_t)s->open, "accepts", (json_int_t)s->accepts, "closes",
		(json_int_t)s->closes, "churn_per_s", s->churn_per_s, "last_s", s->last_s, "weight",
		s->weight == TG_WEIGHT_EXEMPT ? json_null() : json_integer(s->weight),
		"penalty_left_s", s->penalty_left_s, "strikes", (json_int_t)s->strikes);
}

ADMIN_ANSWER(admin_sources_show)
{
	struct source_info *sources = NULL;
	json_t *all;
	size_t n = 0;
	int r = api->backend.sources(api->backend.ctx, rq->query.kick.which.limit, &sources, &n);

	if (r == -EOPNOTSUPP)
		return not_in_kernel(ret);
	if (r < 0)
		return admin_backend_error(r, ret);
	all = json_array();
	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(all, source_json(&sources[i]))) {
			json_decref(all);
			all = NULL;
			break;
		}
	free(sources);
	return admin_json_answer(MHD_HTTP_OK, all, ret);
}

ADMIN_ANSWER(admin_why_show)
{
	const char *text = rq->query.kick.which.peer;
	struct why_info w;
	struct in6_addr addr = {0};
	int r;

	if (!*text)
		return admin_error(MHD_HTTP_BAD_REQUEST, "give peer", ret);
	if (inet_pton(AF_INET, text, &addr.s6_addr[12]) == 1)
		addr.s6_addr[10] = addr.s6_addr[11] = 0xff;
	else if (inet_pton(AF_INET6, text, &addr) != 1)
		return admin_error(MHD_HTTP_BAD_REQUEST, "peer must be an address", ret);
	r = api->backend.why(api->backend.ctx, &addr, &w);
	if (r == -EOPNOTSUPP)
		return not_in_kernel(ret);
	if (r < 0)
		return admin_backend_error(r, ret);
	return admin_json_answer(MHD_HTTP_OK,
		json_pack("{s:s, s:b, s:b, s:s, s:s, s:s, s:b, s:b, s:b, s:I}", "address", text,
			"admitted", w.admitted, "observed", w.observed, "decides", w.decides,
			"entry", w.entry, "detail", w.detail, "proven", w.proven, "exempt",
			w.exempt, "cookie", w.cookie, "open", (json_int_t)w.open),
		ret);
}

/* How many of the sockets have their wake delay measured now; more than asked for while there are
 * few. */
ADMIN_ANSWER(admin_sample_show)
{
	const struct admin_backend *b = &api->backend;

	return admin_json_answer(MHD_HTTP_OK,
		json_pack("{s:f}", "percent", b->share ? 100 * b->share(b->ctx) : 0.0), ret);
}

ADMIN_ANSWER(admin_sample_set)
{
	const struct admin_query *q = &rq->query;
	int r;

	if (!(q->given & ADMIN_KEY_PERCENT))
		return admin_error(MHD_HTTP_BAD_REQUEST, "give percent", ret);
	r = api->backend.sample(api->backend.ctx, q->percent);
	if (r == -EOPNOTSUPP)
		return not_in_kernel(ret);
	if (r == -EIO)
		return admin_error(
			MHD_HTTP_CONFLICT, "the kernel does not measure; the log says why", ret);
	if (r == -ETIMEDOUT)
		return admin_error(MHD_HTTP_SERVICE_UNAVAILABLE, "the keeper does not answer", ret);
	if (r < 0)
		return admin_backend_error(r, ret);
	log_info("admin", "uid %u (pid %d) had %u %% of the sockets measured",
		(unsigned)rq->peer.uid, (int)rq->peer.pid, q->percent);
	return admin_json_answer(MHD_HTTP_OK, json_pack("{s:i}", "percent", (int)q->percent), ret);
}

static unsigned show_list(
	const struct admin_api *api, enum gate_list which, struct MHD_Response **ret)
{
	struct list_info *entries = NULL;
	json_t *all = NULL;
	size_t n = 0;
	int r = api->backend.list(api->backend.ctx, which, &entries, &n);

	if (r == -EOPNOTSUPP)
		return is_off(ret);
	if (r < 0)
		return admin_backend_error(r, ret);
	all = json_array();
	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(
			    all, json_pack("{s:s, s:s}", "prefix", entries[i].prefix, "origin",
					 entries[i].configured ? "config" : "operator"))) {
			json_decref(all);
			all = NULL;
			break;
		}
	free(entries);
	return admin_json_answer(MHD_HTTP_OK, all, ret);
}

static unsigned change_list(const struct admin_api *api, const struct admin_request *rq,
	enum gate_list which, bool add, struct MHD_Response **ret)
{
	const struct prefix_entry *e = &rq->query.source;
	char text[PREFIX_TEXT_MAX], who[ADMIN_WHO_MAX];
	int r;

	if (!(rq->query.given & ADMIN_KEY_SOURCE))
		return admin_error(MHD_HTTP_BAD_REQUEST, "give prefix", ret);
	r = api->backend.list_change(api->backend.ctx, which, add, e);
	if (r == -EOPNOTSUPP)
		return is_off(ret);
	if (r == -EEXIST)
		return admin_error(MHD_HTTP_CONFLICT, "the prefix is in the list already", ret);
	if (r == -ENOENT)
		return admin_error(MHD_HTTP_NOT_FOUND, "the prefix is not in the list", ret);
	if (r == -E2BIG)
		return admin_error(MHD_HTTP_CONFLICT, "the list is full", ret);
	if (r < 0)
		return admin_backend_error(r, ret);
	prefix_format(&e->addr, e->len, text);
	log_info("admin", "%s %s %s %s the %s list", admin_who(rq, who), add ? "added" : "took",
		text, add ? "to" : "from", list_names[which]);
	return admin_json_answer(
		MHD_HTTP_OK, json_pack("{s:s}", add ? "added" : "deleted", text), ret);
}

ADMIN_ANSWER(admin_allow_show)
{
	return show_list(api, GATE_ALLOW, ret);
}

ADMIN_ANSWER(admin_allow_add)
{
	return change_list(api, rq, GATE_ALLOW, true, ret);
}

ADMIN_ANSWER(admin_allow_del)
{
	return change_list(api, rq, GATE_ALLOW, false, ret);
}

ADMIN_ANSWER(admin_deny_show)
{
	return show_list(api, GATE_DENY, ret);
}

ADMIN_ANSWER(admin_deny_add)
{
	return change_list(api, rq, GATE_DENY, true, ret);
}

ADMIN_ANSWER(admin_deny_del)
{
	return change_list(api, rq, GATE_DENY, false, ret);
}
