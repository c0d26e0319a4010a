#include "commands.h"

#include "show.h"

const char *const parameter_names[PARAMETERS] = {"limit", "route", "listener", "peer", "session",
	"code", "reason", "slow", "secret-file", "subject", "expires", "prefix", "connections",
	"interval", "count", "word", "rate", "percent", "prefix", "topic"};

const struct command commands[] = {
	{
		.name = "status",
		.usage = "",
		.summary = "how the gateway is, in one screen",
		.help = "Counters are totals since the gateway process started.\n",
		.method = "GET",
		.path = "/v1/status",
		.show = show_status,
	},
	{
		.name = "workers",
		.usage = "",
		.summary = "each worker's load and delays",
		.help = "DELAY is from an event's reception to its turn in the run queue, LOOP one "
			"turn of the\n"
			"worker's loop; both since the start.\n",
		.method = "GET",
		.path = "/v1/workers",
		.show = show_workers,
	},
	{
		.name = "conns",
		.usage = " [--limit N] [--route PATH] [--listener NAME] [--peer ADDRESS] "
			 "[--session ID] [--slow]",
		.summary = "client connections",
		.help = "  --limit N        show at most N connections, 1 to 100000 (default 100)\n"
			"  --route PATH     only those of a route, its path as configured\n"
			"  --listener NAME  only those of a listener\n"
			"  --peer ADDRESS   only those of an IPv4 or IPv6 address\n"
			"  --session ID     only this session\n"
			"  --slow           only those with a backlog, the greatest first\n",
		.method = "GET",
		.path = "/v1/conns",
		.takes = 1 << LIMIT | 1 << ROUTE | 1 << LISTENER | 1 << PEER | 1 << SESSION |
			 1 << SLOW,
		.show = show_conns,
	},
	{
		.name = "links",
		.usage = "",
		.summary = "links to downstream services",
		.help = "One line per worker and endpoint.\n",
		.method = "GET",
		.path = "/v1/links",
		.show = show_links,
	},
	{
		.name = "topics",
		.usage = " [--prefix P] [--limit N]",
		.summary = "topics that somebody hears",
		.help = "SESSIONS are those that subscribed to this very topic or pattern.\n"
			"  --prefix P       only those that begin with P\n"
			"  --limit N        show at most N topics, 1 to 100000 (default 100)\n",
		.method = "GET",
		.path = "/v1/topics",
		.takes = 1 << PREFIX | 1 << LIMIT,
		.show = show_topics,
	},
	{
		.name = "publish",
		.usage = " TOPIC DATA",
		.summary = "publish to a topic",
		.help = "Hub clients get DATA as it is where it is JSON, else as a JSON string.\n",
		.method = "POST",
		.path = "/v1/publish",
		.publishes = true,
		.show = show_publish,
	},
	{
		.name = "kick",
		.usage = " (--session ID | --route PATH) [--code CODE] [--reason TEXT]",
		.summary = "close sessions",
		.help = "  --session ID     close this session\n"
			"  --route PATH     close all sessions of a route, its path as configured\n"
			"  --code CODE      close code for the clients: 1000-1003, 1007-1014, "
			"3000-4999 (default 1008)\n"
			"  --reason TEXT    reason for the clients, at most 123 bytes\n",
		.method = "POST",
		.path = "/v1/kick",
		.takes = 1 << SESSION | 1 << ROUTE | 1 << CODE | 1 << REASON,
		.show = show_kick,
	},
	{
		.name = "gate",
		.usage = " [auto | open | shut | rate N]",
		.summary = "how newcomers are let in, and why",
		.help = "  auto    the governor decides\n"
			"  open    let everybody in, whatever is measured\n"
			"  shut    let nobody in but the allow list\n"
			"  rate N  let N connections per second in\n"
			"Without a word: shows the gate. A word holds until the next one or a "
			"restart.\n",
		.method = "GET",
		.path = "/v1/gate",
		.show = show_gate,
	},
	{
		.name = "sample",
		.usage = " [set PERCENT]",
		.summary = "of how many sockets the kernel measures the wake delay",
		.help = "  set PERCENT  measure it of so many from now on, 0 to 100; 0 ends all "
			"measuring in the kernel\n"
			"While there are few connections more of them are measured, so that there "
			"is "
			"something to see.\n"
			"Holds until a restart; sched.sample_percent is for good.\n",
		.method = "GET",
		.path = "/v1/sample",
		.show = show_sample,
	},
	{
		.name = "sources",
		.usage = " [--limit N]",
		.summary = "source prefixes that the kernel knows, the busiest first",
		.help = "A prefix is known once a connection from it was established. CHURN is "
			"accepts and closes\n"
			"per second since then.\n"
			"  --limit N  show at most N, 1 to 100000 (default 100)\n",
		.method = "GET",
		.path = "/v1/sources",
		.takes = 1 << LIMIT,
		.show = show_sources,
	},
	{
		.name = "why",
		.usage = " ADDRESS",
		.summary = "what would become of a connection attempt from an address",
		.help = "Says which list, penalty or gate decides, in the order in which the "
			"kernel looks.\n",
		.method = "GET",
		.path = "/v1/why",
		.takes = 1 << PEER,
		.about_peer = true,
		.show = show_why,
	},
	{
		.name = "detach",
		.usage = "",
		.summary = "end the gate in the kernel, also without a gateway",
		.help = "Detaches the programs of the instance and removes its maps. For what a "
			"crash has left\n"
			"behind; a clean stop does it by itself. Needs root, asks no gateway.\n",
		.own_work = OWN_WORK_DETACH,
	},
	{
		.name = "allow",
		.usage = " [list | add PREFIX | del PREFIX]",
		.summary = "sources that are always let in",
		.help = "PREFIX is an address or a prefix: 192.0.2.7, 10.0.0.0/8, 2001:db8::/32.\n"
			"Changes hold until a restart; admission.allow is for good.\n",
		.method = "GET",
		.path = "/v1/allow",
		.show = show_list,
	},
	{
		.name = "deny",
		.usage = " [list | add PREFIX | del PREFIX]",
		.summary = "sources that are refused",
		.help = "PREFIX is an address or a prefix: 192.0.2.7, 10.0.0.0/8, 2001:db8::/32.\n"
			"Changes hold until a restart; admission.deny is for good.\n",
		.method = "GET",
		.path = "/v1/deny",
		.show = show_list,
	},
	{
		.name = "drain",
		.usage = "",
		.summary = "stop accepting, close sessions over drain.period, exit",
		.help = "The same as SIGTERM to the gateway. Returns at once.\n",
		.method = "POST",
		.path = "/v1/drain",
		.show = show_drain,
	},
	{
		.name = "token",
		.usage = " --secret-file FILE --subject TEXT --expires DURATION",
		.summary = "make a token for routes of type token",
		.help = "Asks no gateway.\n"
			"  --secret-file FILE   one of the files in auth.secrets\n"
			"  --subject TEXT       whom it is for, at most 256 bytes\n"
			"  --expires DURATION   how long it is good: 90s, 15m, 1h\n",
		.takes = 1 << SECRET_FILE | 1 << SUBJECT | 1 << EXPIRES,
		.own_work = OWN_WORK_TOKEN,
	},
	{
		.name = "doctor",
		.usage = " [--connections N]",
		.summary = "what of this machine keeps a gateway from doing well",
		.help = "Looks at features of the kernel, limits, sysctls, interfaces, clock, and "
			"at the gateway if\n"
			"one runs. Says what each should be, why, and the command that sets it; "
			"changes nothing.\n"
			"Exit code 1 when there is a problem; advice and warnings are none.\n"
			"  --connections N  judge for so many connections (default 100000)\n",
		.takes = 1 << CONNECTIONS,
		.own_work = OWN_WORK_DOCTOR,
	},
	{
		.name = "top",
		.usage = " [--interval N] [--count N]",
		.summary = "workers, gate, sources, routes and links, live, on the whole screen",
		.help = "? lists the keys. Where stdout is no terminal, or a dumb one (TERM): a "
			"line "
			"a second in the\n"
			"keys of the scheduler line. With --json: the live snapshot, an object a "
			"line.\n"
			"  --interval N  seconds between two looks (default 1)\n"
			"  --count N     print N lines and exit\n",
		.takes = 1 << INTERVAL | 1 << COUNT,
		.own_work = OWN_WORK_TOP,
	},
};

const unsigned n_commands = sizeof(commands) / sizeof(commands[0]);

const struct subcommand subcommands[] = {
	{"gate", "auto", PARAMETERS, "/v1/gate/set", "auto", show_gate_word},
	{"gate", "open", PARAMETERS, "/v1/gate/set", "open", show_gate_word},
	{"gate", "shut", PARAMETERS, "/v1/gate/set", "shut", show_gate_word},
	{"gate", "rate", RATE, "/v1/gate/set", "rate", show_gate_word},
	{"sample", "set", PERCENT, "/v1/sample/set", NULL, show_sample},
	{"allow", "list", PARAMETERS, NULL, NULL, show_list},
	{"allow", "add", SOURCE, "/v1/allow/add", NULL, show_list_change},
	{"allow", "del", SOURCE, "/v1/allow/del", NULL, show_list_change},
	{"deny", "list", PARAMETERS, NULL, NULL, show_list},
	{"deny", "add", SOURCE, "/v1/deny/add", NULL, show_list_change},
	{"deny", "del", SOURCE, "/v1/deny/del", NULL, show_list_change},
};

const unsigned n_subcommands = sizeof(subcommands) / sizeof(subcommands[0]);
