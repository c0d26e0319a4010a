/* tidegatectl top without a terminal: what keys do, and what is on the screen. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../tools/tidegatectl/top_layout.h"
#include "ops/schedline.h"

static struct top_model m;
static struct top_screen screen;

static const char snapshot_text[] =
	"{\"instance\": \"shop\", \"version\": \"0.1.0\", \"seq\": 1, \"time\": 100.5, "
	"\"interval_s\": 2.0, \"uptime_s\": 93784, \"line\": null, \"workers\": ["
	"{\"worker\": 0, \"connections\": 900000, \"runnable\": 181000, \"busy\": 0.97, "
	"\"accepts_per_s\": 4500, \"closes_per_s\": 4350, \"poll_delay_p50_ns\": 850000, "
	"\"poll_delay_p99_ns\": 37000000, \"poll_delay_max_ns\": 52000000, "
	"\"wake_delay_p99_ns\": 1200000, \"forced_yields\": 9, \"forced_yields_per_s\": 50, "
	"\"heap_bytes\": 1572864, \"rings\": 3},"
	"{\"worker\": 1, \"connections\": 899000, \"runnable\": 12, \"busy\": 0.5, "
	"\"accepts_per_s\": 4500, \"closes_per_s\": 4350, \"poll_delay_p50_ns\": 10000, "
	"\"poll_delay_p99_ns\": 90000, \"poll_delay_max_ns\": 900000, "
	"\"wake_delay_p99_ns\": null, \"forced_yields\": 0, \"forced_yields_per_s\": 0, "
	"\"heap_bytes\": 0, \"rings\": 3}],"
	"\"gate\": {\"state\": \"paced\", \"reason\": \"delay\", \"mode\": \"kernel\", "
	"\"where\": \"kernel\", \"word\": \"auto\", \"rate\": 1200, \"permits\": null, "
	"\"unserved\": 17, \"delay_ns\": 6200000, \"target_ns\": 5000000, "
	"\"handshake_share\": 0.4, \"handshake_share_min\": 0.2, \"goodput_per_s\": 1100, "
	"\"cuts\": 3, \"shuts\": 1, \"holds\": 0},"
	"\"verdicts\": [{\"program\": \"admit\", \"reason\": \"rate\", \"refuses\": true, "
	"\"total\": 900, \"per_s\": 100, \"observed\": 0},"
	"{\"program\": \"user\", \"reason\": \"shut\", \"refuses\": true, \"total\": 40, "
	"\"per_s\": 20, \"observed\": 0},"
	"{\"program\": \"admit\", \"reason\": \"open\", \"refuses\": false, \"total\": 1, "
	"\"per_s\": 5000, \"observed\": 0}],"
	"\"sources\": ["
	"{\"prefix\": \"192.0.2.7/32\", \"open\": 5, \"accepts\": 100, \"closes\": 95, "
	"\"churn_per_s\": 50.2, \"strikes\": 0, \"penalty_left_ms\": 0},"
	"{\"prefix\": \"2001:db8:1:2::/64\", \"open\": 900, \"accepts\": 1000, \"closes\": 100, "
	"\"churn_per_s\": 70, \"strikes\": 2, \"penalty_left_ms\": 125000}],"
	"\"routes\": [{\"path\": \"/echo\", \"upstream\": \"echo\", \"policy\": \"disconnect\", "
	"\"connections\": 3, \"dropped\": 0, \"dropped_per_s\": 0},"
	"{\"path\": \"/caf\\u00e9/\\u001b[2J\", \"upstream\": \"hub\", \"policy\": \"conflate\", "
	"\"connections\": 1800000, \"dropped\": 70, \"dropped_per_s\": 3.5}],"
	"\"links\": [{\"upstream\": \"svc\", \"endpoint\": \"tcp://10.0.0.1:9300\", \"links\": 2, "
	"\"up\": 1, \"sessions\": 40, \"queued_bytes\": 1536, \"rtt_us\": 120, "
	"\"state\": \"waiting\", \"last_error\": \"refused\"}],"
	"\"memory\": {\"rss\": 423624704, \"per_connection\": 235, \"pressure\": 0.5, "
	"\"limit\": 0.9}}";

static json_t *snapshot(double seq)
{
	json_t *j = json_loads(snapshot_text, 0, NULL);

	assert_non_null(j);
	json_object_set_new(j, "seq", json_real(seq));
	return j;
}

static int setup(void **state)
{
	top_model_init(&m);
	top_model_snapshot(&m, snapshot(1));
	return 0;
}

static int teardown(void **state)
{
	top_model_fini(&m);
	top_screen_fini(&screen);
	return 0;
}

static void draw(unsigned rows, unsigned cols, bool utf8)
{
	top_screen_fini(&screen);
	assert_true(top_screen_init(&screen, rows, cols, utf8));
	top_layout(&m, &screen);
}

/* A row of the last drawing is this, or begins with it when it ends in '*'. */
static void assert_row(unsigned row, const char *text)
{
	char *has = top_row_text(&screen, row);
	size_t n = strlen(text);

	if (text[n - 1] == '*' ? strncmp(has, text, n - 1) : strcmp(has, text) != 0)
		fail_msg("row %u is\n%s\nnot\n%s", row, has, text);
	free(has);
}

static bool on_screen(const char *text)
{
	bool found = false;

	for (unsigned r = 0; r < screen.rows && !found; r++) {
		char *has = top_row_text(&screen, r);
		found = strstr(has, text) != NULL;
		free(has);
	}
	return found;
}

static enum top_do press(const char *keys)
{
	enum top_do what = TOP_DO_NOTHING;

	for (; *keys; keys++)
		what = top_model_key(&m, *keys == '\n' ? TOP_KEY_ENTER : (uint32_t)*keys);
	return what;
}

static void test_80x24(void **state)
{
	draw(24, 80, false);
	assert_row(0, "tidegate shop up 1d02h  p99 37ms  conns 1.8M  runq 181k  acc/s 9k  cls/s "
		      "8.7k");
	assert_row(1, "gate paced by delay  in kernel  word auto  rate 1.2k/s  unserved 17");
	assert_row(2, "why delay 6.2ms/5ms  handshakes 40%/20% 1.1k/s  memory 50%/90% 404MiB 235B "
		      "each");
	assert_row(3, "refused 120/s  admit.rate 100/s  user.shut 20/s");
	assert_row(4, " W+ CONNS  RUNQ BUSY ACC/S CLS/S   P50   P99   MAX P99 OVER TIME");
	assert_row(5, "  0  900k  181k  97%  4.5k  4.4k 850us  37ms  52ms #");
	assert_row(6, "  1  899k    12  50%  4.5k  4.4k  10us  90us 900us .");
	assert_row(7, "PREFIX                     OPEN CHURN/S ACCEPTS  CLOSES STRIKES  PENALTY");
	assert_row(8, "2001:db8:1:2::/64           900      70      1k     100       2    2m05s");
	assert_row(9, "192.0.2.7/32                  5      50     100      95       0        -");
	assert_row(10, "PATH                     CONNS- DROPS/S DROPPED UPSTREAM         POLICY");
	assert_row(11, "/caf?/?[2J                 1.8M     3.5      70 hub              conflate");
	assert_row(
		12, "/echo                         3       0       0 echo             disconnect");
	assert_row(13,
		"UPSTREAM+    ENDPOINT                    UP  OF  SESS  QUEUED   RTT LAST ERROR");
	assert_row(
		14, "svc          tcp://10.0.0.1:9300          1   2    40  1.5KiB 120us refused");
	assert_row(
		23, "? help  Tab pane  s sort  r reverse  p pause  g gate  d deny  k kick  q quit");
}

static void test_wide_and_utf8(void **state)
{
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		skip();
	draw(30, 140, true);
	assert_true(on_screen("WAKE99 YLD/S    HEAP RINGS P99 OVER TIME"));
	assert_true(on_screen(" 1.2ms    50  1.5MiB     3 █"));
	assert_true(on_screen("     -     0      0B     3 ▁"));
	assert_true(on_screen("/café/?[2J "));
	setlocale(LC_CTYPE, "C");
}

/* Whatever the size: no crash, nothing beyond it, and the last row is the foot. */
static void test_every_size(void **state)
{
	for (unsigned rows = 0; rows < 40; rows++)
		for (unsigned cols = 0; cols < 150; cols += cols < 20 ? 1 : 13) {
			draw(rows, cols, false);
			if (rows && cols > 6)
				assert_row(rows - 1, "? help*");
			if (rows == 10 && cols > 70)
				/* What does not fit gives way to what is in focus. */
				assert_true(on_screen("P99 OVER TIME"));
		}
	m.focus = TOP_LINKS;
	draw(8, 80, false);
	assert_row(4, "UPSTREAM+*");
	assert_row(5, "svc *");
	draw(TOP_ROWS_MAX + 5, TOP_COLS_MAX + 5, false);
	assert_int_equal(screen.rows, TOP_ROWS_MAX);
	assert_int_equal(screen.cols, TOP_COLS_MAX);
}

static void test_levels(void **state)
{
	const uint64_t target = 5000000;

	assert_int_equal(top_level(0, target), 0);
	assert_int_equal(top_level(1, target), 1);
	assert_int_equal(top_level(target / 32 - 1, target), 1);
	assert_int_equal(top_level(target / 32, target), 2);
	assert_int_equal(top_level(target / 2, target), 6);
	assert_int_equal(top_level(target - 1, target), 6);
	assert_int_equal(top_level(target, target), 7);
	assert_int_equal(top_level(2 * target - 1, target), 7);
	assert_int_equal(top_level(2 * target, target), 8);
	assert_int_equal(top_level(UINT64_MAX, target), 8);
	assert_int_equal(top_level(5, 0), 8);
}

static void test_history(void **state)
{
	/* The same snapshot twice is one. */
	top_model_snapshot(&m, snapshot(1));
	assert_int_equal(m.history[0].n, 1);
	for (unsigned i = 2; i < TOP_HISTORY + 10; i++)
		top_model_snapshot(&m, snapshot(i));
	assert_int_equal(m.history[0].n, TOP_HISTORY);
	draw(24, 80, false);
	assert_row(6,
		"  1  899k    12  50%  4.5k  4.4k  10us  90us 900us .............................");

	/* Another number of workers: another process. */
	json_t *j = snapshot(9999);
	json_array_remove(json_object_get(j, "workers"), 1);
	top_model_snapshot(&m, j);
	assert_int_equal(m.n_history, 1);
	assert_int_equal(m.history[0].n, 1);
}

static void test_sorting(void **state)
{
	const json_t *rows[4];

	/* Sources are by churn at first; the next column is ACCEPTS, and back. */
	press("2s");
	assert_int_equal(m.view[TOP_SOURCES].sort, 3);
	assert_int_equal(top_model_rows(&m, TOP_SOURCES, rows, 4), 2);
	assert_string_equal(top_text(rows[0], "prefix"), "2001:db8:1:2::/64");
	press("r");
	top_model_rows(&m, TOP_SOURCES, rows, 4);
	assert_string_equal(top_text(rows[0], "prefix"), "192.0.2.7/32");
	press("SSS");
	assert_int_equal(m.view[TOP_SOURCES].sort, 0);
	assert_false(m.view[TOP_SOURCES].descending); /* text */
	top_model_rows(&m, TOP_SOURCES, rows, 4);
	assert_string_equal(top_text(rows[0], "prefix"), "192.0.2.7/32");
	press("S");
	assert_int_equal(m.view[TOP_SOURCES].sort, 6);
	assert_int_equal(top_model_rows(&m, TOP_SOURCES, rows, 1), 1);
	draw(24, 80, false);
	assert_true(on_screen("PENALTY-"));
	press("1ss");
	top_model_rows(&m, TOP_WORKERS, rows, 4);
	assert_true(top_number(rows[0], "worker") == 0);
	press("r");
	top_model_rows(&m, TOP_WORKERS, rows, 4);
	assert_true(top_number(rows[0], "worker") == 1);
}

static void test_moving(void **state)
{
	top_model_key(&m, TOP_KEY_TAB);
	assert_int_equal(m.focus, TOP_SOURCES);
	top_model_key(&m, TOP_KEY_BACK_TAB);
	top_model_key(&m, TOP_KEY_BACK_TAB);
	assert_int_equal(m.focus, TOP_LINKS);
	press("2");
	top_model_key(&m, TOP_KEY_DOWN);
	assert_int_equal(m.view[TOP_SOURCES].selected, 1);
	top_model_key(&m, TOP_KEY_DOWN);
	assert_int_equal(m.view[TOP_SOURCES].selected, 1);
	top_model_key(&m, TOP_KEY_HOME);
	assert_int_equal(m.view[TOP_SOURCES].selected, 0);
	top_model_key(&m, TOP_KEY_PAGE_DOWN);
	assert_int_equal(m.view[TOP_SOURCES].selected, 1);
	top_model_key(&m, TOP_KEY_PAGE_UP);
	top_model_key(&m, TOP_KEY_END);
	assert_int_equal(m.view[TOP_SOURCES].selected, 1);
	draw(24, 80, false);
	assert_int_equal(screen.cell[9 * 80].style, TOP_CHOSEN);
	/* A list that has become shorter. */
	json_t *j = snapshot(2);
	json_array_clear(json_object_get(j, "sources"));
	top_model_snapshot(&m, j);
	draw(24, 80, false);
	assert_true(on_screen("no sources: none"));
	top_model_key(&m, TOP_KEY_UP);
	assert_int_equal(m.view[TOP_SOURCES].selected, 0);
}

/* More workers than rows: the chosen one is on the screen, and how many there are. */
static void test_scrolling(void **state)
{
	json_t *j = snapshot(2), *workers = json_object_get(j, "workers");

	for (int i = 2; i < 64; i++) {
		json_t *w = json_deep_copy(json_array_get(workers, 1));
		json_object_set_new(w, "worker", json_integer(i));
		json_array_append_new(workers, w);
	}
	top_model_snapshot(&m, j);
	draw(24, 80, false);
	assert_true(on_screen(" of 64"));
	assert_false(on_screen(" 63  899k "));
	top_model_key(&m, TOP_KEY_END);
	draw(24, 80, false);
	assert_true(on_screen(" 63  899k "));
	assert_true(on_screen("    64 of 64"));
}

static void test_gate_words(void **state)
{
	static const struct {
		const char *keys, *target;
	} cases[] = {
		{"gay", "/v1/gate/set?word=auto"},
		{"goy", "/v1/gate/set?word=open"},
		{"gsY", "/v1/gate/set?word=shut"},
		{"gr500\ny", "/v1/gate/set?word=rate&rate=500"},
		{"d10.0.0.0/8\ny", "/v1/deny/add?prefix=10.0.0.0/8"},
		{"k77\ny", "/v1/kick?session=77"},
		{"k/a b&c\ny", "/v1/kick?route=/a%20b%26c"},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(press(cases[i].keys), TOP_DO_POST);
		assert_string_equal(m.target, cases[i].target);
		assert_int_equal(m.mode, TOP_VIEW);
	}
}

/* Nothing is posted but by 'y' after a question. */
static void test_nothing_without_yes(void **state)
{
	static const char *const keys[] = {"gs", "gsn", "gs ", "gs\n", "gx", "g\033", "d\n",
		"d10.0.0.0/8\n", "d10.0.0.0/8\nn", "k\n", "k5\nq", "gr\n", "gr5\nN", "y", "gsny",
		"?y", "d\ny"};

	for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		teardown(NULL);
		setup(NULL);
		for (const char *k = keys[i]; *k; k++) {
			char one[2] = {*k, '\0'};
			if (press(one) != TOP_DO_NOTHING)
				fail_msg("'%s' did something", keys[i]);
		}
	}
	teardown(NULL);
	setup(NULL);
	press("gs");
	draw(24, 80, false);
	assert_row(23, "tell the gate: shut, so that nobody is let in? (y/n)");
	press("n");
	draw(24, 80, false);
	assert_row(23, "nothing was done");
	press("?");
	draw(24, 80, false);
	assert_row(0, "tidegatectl top");
	press("x");
	assert_int_equal(m.mode, TOP_VIEW);
	assert_int_equal(press("q"), TOP_DO_QUIT);
}

static void test_line_editing(void **state)
{
	press("2d");
	assert_string_equal(m.input, "2001:db8:1:2::/64"); /* the first is chosen */
	draw(24, 80, false);
	assert_row(23, "refuse address or prefix: 2001:db8:1:2::/64_");
	top_model_key(&m, TOP_KEY_BACKSPACE);
	top_model_key(&m, TOP_KEY_BACKSPACE);
	press("48");
	top_model_key(&m, TOP_KEY_UP); /* no character */
	top_model_key(&m, 0xe9);
	assert_string_equal(m.input, "2001:db8:1:2::/48");
	top_model_key(&m, 'U' - '@');
	assert_string_equal(m.input, "");
	top_model_key(&m, TOP_KEY_BACKSPACE);
	for (unsigned i = 0; i < 2 * TOP_INPUT_MAX; i++)
		press("%");
	assert_int_equal(strlen(m.input), TOP_INPUT_MAX - 1);
	press("\n");
	assert_int_equal(m.mode, TOP_CONFIRM); /* three bytes each do fit */
	press("n3k");
	assert_string_equal(m.input, "/caf\xc3\xa9/\x1b[2J");
	press("\n");
	assert_string_equal(m.target, "/v1/kick?route=/caf%C3%A9/%1B%5B2J");
	top_model_key(&m, TOP_KEY_ESCAPE);
	assert_int_equal(m.mode, TOP_VIEW);
	press("1k"); /* nothing of another pane is taken */
	assert_string_equal(m.input, "");
}

static void test_lost(void **state)
{
	top_model_lost(&m, "/run/x.sock: Connection refused");
	draw(24, 80, false);
	assert_true(on_screen("  LOST"));
	assert_row(23, "/run/x.sock: Connection refused");
	assert_row(5, "  0  900k *"); /* what was known last */
	press("s");
	draw(24, 80, false);
	assert_row(23, "/run/x.sock: Connection refused");
	top_model_snapshot(&m, snapshot(2));
	draw(24, 80, false);
	assert_false(on_screen("LOST"));
	assert_row(23, "? help*");
	top_model_answer(&m, false, "admission is off");
	draw(24, 80, false);
	assert_row(23, "admission is off");
	press("p");
	top_model_snapshot(&m, snapshot(3));
	assert_true(top_number(m.snapshot, "seq") == 2);
	draw(24, 80, false);
	assert_true(on_screen(" PAUSED"));
}

/* Answers of another version, or none that make sense. */
static void test_strange_snapshots(void **state)
{
	static const char *const texts[] = {"{}", "[]",
		"{\"workers\": 5, \"gate\": [], \"memory\": 1}",
		"{\"workers\": [1, null, {}], \"sources\": [[]], \"routes\": {\"a\": 1}, "
		"\"verdicts\": [null, {\"refuses\": true, \"total\": \"x\"}]}",
		"{\"workers\": [{\"worker\": -1e300, \"connections\": 1e300, \"busy\": 1e300, "
		"\"poll_delay_p99_ns\": 1e300, \"heap_bytes\": 1e300}, {\"worker\": 1e300}], "
		"\"interval_s\": 1e300, \"uptime_s\": -1e300, \"gate\": {\"state\": 5, "
		"\"target_ns\": 1e300}, \"routes\": [{\"path\": \"\", \"connections\": -5}], "
		"\"links\": [{\"up\": -1, \"links\": 1e300, \"endpoint\": {}}]}"};
	char line[SCHEDLINE_MAX];

	for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		json_t *j = json_loads(texts[i], 0, NULL);
		assert_non_null(j);
		json_object_set_new(j, "seq", json_integer(i + 10));
		top_model_snapshot(&m, j);
		draw(24, 80, false);
		draw(50, 200, true);
		top_line(j, line);
		assert_non_null(strstr(line, " dropped="));
	}
	top_model_fini(&m);
	top_model_init(&m);
	draw(24, 80, false); /* none yet */
	assert_true(on_screen("no workers: waiting for the gateway"));
	assert_int_equal(press("2d\n"), TOP_DO_NOTHING);
}

static void test_line(void **state)
{
	char line[SCHEDLINE_MAX];

	top_line(m.snapshot, line);
	assert_string_equal(line,
		"sched_poll_delay_p99=37ms runnable_tasks=181k accepts=9k/s closes=8.7k/s "
		"conns=1.8M "
		"gate=paced admitted=18k refused=240 forced_yields=100 dropped=7");
}

static void test_screen(void **state)
{
	struct top_screen s;

	assert_true(top_screen_init(&s, 2, 5, false));
	assert_int_equal(top_put(&s, 0, 3, TOP_BOLD, "abc\n"), 7);
	assert_int_equal(top_put(&s, 9, 0, TOP_BOLD, "x"), 1);
	top_put(&s, 1, 0, TOP_NORMAL, "\xff\xc3\xa9\xe2\x82\x1b");
	char *text = top_row_text(&s, 0);
	assert_string_equal(text, "   ab");
	free(text);
	text = top_row_text(&s, 1);
	assert_string_equal(text, "?????");
	free(text);
	assert_int_equal(s.cell[4].style, TOP_BOLD);
	top_paint(&s, 0, TOP_BAD);
	assert_int_equal(s.cell[0].style, TOP_BAD);
	top_screen_fini(&s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_80x24),
		TEST(test_wide_and_utf8),
		TEST(test_every_size),
		TEST(test_levels),
		TEST(test_history),
		TEST(test_sorting),
		TEST(test_moving),
		TEST(test_scrolling),
		TEST(test_gate_words),
		TEST(test_nothing_without_yes),
		TEST(test_line_editing),
		TEST(test_lost),
		TEST(test_strange_snapshots),
		TEST(test_line),
		TEST(test_screen),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
