/* Every counter and gauge of the gateway, listed once: X(field, name, unit, help).
 *
 * Each worker owns one struct tg_worker_stats and writes it with plain stores; anyone may read it
 * at any time. Counters only grow. base/stats.h makes the struct of these lists, ops/metrics.c the
 * exposition. Names are those of the Prometheus text without the `tidegate_` in front; counters end
 * in _total. What is kept in nanoseconds is exposed in seconds.
 */
#ifndef TIDEGATE_STATS_H
#define TIDEGATE_STATS_H

/* Per worker, counters. */
#define TG_COUNTERS(X)                                                                             \
	X(accepts, "accepts_total", "connections", "Client connections accepted")                  \
	X(accept_errors, "accept_errors_total", "errors", "Accepts that failed")                   \
	X(accept_pauses, "accept_pauses_total", "pauses", "Times a full worker stopped accepting") \
	X(refused_full, "refused_full_total", "connections",                                       \
		"Connections closed at once for want of a slot")                                   \
	X(handshakes, "handshakes_total", "handshakes", "Handshakes completed")                    \
	X(sessions_opened, "sessions_opened_total", "sessions", "Sessions opened")                 \
	X(messages_in, "messages_in_total", "messages", "Messages received from clients")          \
	X(messages_out, "messages_out_total", "messages", "Messages queued to clients")            \
	X(bytes_in, "bytes_in_total", "bytes", "Bytes received from clients")                      \
	X(bytes_out, "bytes_out_total", "bytes", "Bytes sent to clients")                          \
	X(pings_sent, "pings_sent_total", "pings", "Heartbeats sent to clients")                   \
	X(pongs_received, "pongs_received_total", "pongs", "Heartbeat answers received")           \
	X(forced_yields, "forced_yields_total", "turns",                                           \
		"Turns ended by the turn budget with work left")                                   \
	X(out_blocked, "out_blocked_total", "times",                                               \
		"Times a client's socket took less than what was queued")                          \
	X(out_dropped, "out_dropped_messages_total", "messages",                                   \
		"Messages that out queues had no room for, all routes and policies together; "     \
		"out_dropped_total tells them apart")                                              \
	X(reads_paused, "reads_paused_total", "times",                                             \
		"Times reading from a client was paused by its upstream")                          \
	X(recv_no_buffer, "recv_no_buffer_total", "receives",                                      \
		"Receives that found no provided buffer (ENOBUFS)")                                \
	X(recv_copied, "recv_copied_total", "receives",                                            \
		"Receives copied out of their buffers unparsed, since a ring had as many waiting " \
		"as it tells apart; the connection receives one at a time from then on")           \
	X(cq_overflows, "cq_overflows_total", "times", "Times a completion queue overflowed")      \
	X(stale_completions, "stale_completions_total", "completions",                             \
		"Completions of a slot's former connection")                                       \
	X(rings_grown, "rings_grown_total", "rings", "Rings added to a worker")                    \
	X(ring_failures, "ring_failures_total", "rings",                                           \
		"Rings that could not be added; the worker is full before rings_max")              \
	X(mailbox_full, "mailbox_full_total", "messages",                                          \
		"Messages between threads that had to wait for room")                              \
	X(loops, "loops_total", "turns", "Turns of the worker's loop")                             \
	X(late_turns, "late_turns_total", "turns",                                                 \
		"Turns that took more than ten times their budget (workers.turn; the loop's own "  \
		"work: workers.slice); the log says what they were")                               \
	X(cpu_ns, "cpu_seconds_total", "ns",                                                       \
		"CPU time of the worker's thread, looked at every 100 ms while it is awake")       \
	X(link_connects, "link_connects_total", "links", "Links established")                      \
	X(link_failures, "link_failures_total", "links", "Links lost or not established")          \
	X(link_frames_in, "link_frames_in_total", "frames", "Frames received from services")       \
	X(link_frames_out, "link_frames_out_total", "frames", "Frames sent to services")           \
	X(link_bad_frames, "link_bad_frames_total", "frames",                                      \
		"Malformed frames from services; each ends its link")                              \
	X(link_messages_lost, "link_messages_lost_total", "messages",                              \
		"Client messages sent to a link that died before the service could be known to "   \
		"have them")                                                                       \
	X(link_buffer_refused, "link_buffer_refused_total", "messages",                            \
		"Client messages refused because no link was up and the buffer was full")          \
	X(sessions_failed_over, "sessions_failed_over_total", "sessions",                          \
		"Sessions resumed on another endpoint")                                            \
	X(sessions_rejected, "sessions_rejected_total", "sessions", "Sessions a service rejected") \
	X(hub_published, "hub_published_total", "messages",                                        \
		"Publications taken, of clients, services and operators")                          \
	X(hub_delivered, "hub_delivered_total", "messages",                                        \
		"Publications queued to sessions: one for each that hears it")                     \
	X(hub_lost, "hub_lost_total", "messages",                                                  \
		"Publications that did not reach a worker or a session for want of memory")        \
	X(access_lines, "access_log_lines_total", "lines",                                         \
		"Lines of the access log given to its writer")                                     \
	X(access_dropped, "access_log_dropped_total", "lines",                                     \
		"Lines of the access log dropped since its queue was full")                        \
	X(access_failed, "access_log_failed_total", "lines",                                       \
		"Lines of the access log that could not be written")

/* Per worker, gauges. */
#define TG_GAUGES(X)                                                                               \
	X(connections, "open_connections", "connections",                                          \
		"Client connections open, handshakes included")                                    \
	X(sessions, "sessions", "sessions", "Sessions open")                                       \
	X(handshaking, "handshaking", "connections",                                               \
		"Connections before the end of their handshake")                                   \
	X(rings, "rings", "rings", "io_uring instances of the worker")                             \
	X(runnable, "runnable", "connections", "Items in the run queue at the last publication")   \
	X(blocked, "blocked", "connections",                                                       \
		"Connections whose socket takes nothing at the moment")                            \
	X(heap_bytes, "buffered_bytes", "bytes", "Bytes of out queues and partial messages")       \
	X(accepting, "accepting", "bool", "1 while the worker accepts")                            \
	X(topics, "topics", "topics",                                                              \
		"Topics and patterns that somebody hears, at the worker that orders their "        \
		"messages")                                                                        \
	X(subscriptions, "subscriptions", "subscriptions", "Subscriptions of the worker's sessions")

/* Why a connection was closed: closes_total{reason}. */
#define TG_CLOSE_REASONS(X)                                                                        \
	X(CLIENT, "client", "the client closed, by close frame or FIN")                            \
	X(RESET, "reset", "the connection was reset or failed")                                    \
	X(UPSTREAM, "upstream", "the upstream closed the session")                                 \
	X(HANDSHAKE, "handshake",                                                                  \
		"the handshake was refused; see protocol_errors_total and auth_failures_total")    \
	X(HANDSHAKE_TIMEOUT, "handshake_timeout", "the handshake took too long")                   \
	X(PROTOCOL, "protocol", "the client broke the protocol; see protocol_errors_total")        \
	X(TOO_BIG, "too_big", "a message above the route's limit")                                 \
	X(HEARTBEAT, "heartbeat", "heartbeats went unanswered")                                    \
	X(IDLE, "idle", "no message for idle_timeout")                                             \
	X(AUTH_EXPIRED, "auth_expired", "the client's token expired and was not refreshed")        \
	X(PING_FLOOD, "ping_flood", "the client pinged too much")                                  \
	X(WRITE_TIMEOUT, "write_timeout", "a write made no progress for write_timeout")            \
	X(OUT_FULL, "out_full", "the out queue's cap was reached")                                 \
	X(SHED, "shed", "cut with the most queued when memory for out queues ran short")           \
	X(NO_UPSTREAM, "no_upstream", "no service for the session")                                \
	X(KICKED, "kicked", "closed by an operator")                                               \
	X(DRAIN, "drain", "the gateway is draining")                                               \
	X(NO_MEMORY, "no_memory", "memory or a cap on it ran out")                                 \
	X(HEALTH, "health", "a health check, answered")                                            \
	X(REFUSED, "refused", "refused by admission; see verdicts_total")

/* Why bad input was refused: protocol_errors_total{kind}. */
#define TG_PROTOCOL_ERRORS(X)                                                                      \
	X(HTTP, "http", "malformed or refused HTTP request")                                       \
	X(ORIGIN, "origin", "Origin not allowed")                                                  \
	X(ROUTE, "route", "no such route")                                                         \
	X(WS_FRAME, "ws_frame", "malformed WebSocket frame")                                       \
	X(UTF8, "utf8", "text that is not UTF-8")                                                  \
	X(SIZE, "size", "message above the limit")                                                 \
	X(RAW_FRAME, "raw_frame", "malformed raw frame")                                           \
	X(RAW_HELLO, "raw_hello", "malformed HELLO")                                               \
	X(PROXY, "proxy", "malformed or missing PROXY header")                                     \
	X(PROXY_SOURCE, "proxy_source",                                                            \
		"PROXY listener reached from an address outside proxy_protocol.from")              \
	X(LINK_FRAME, "link_frame", "malformed link frame from a service")

/* Why a client's token was refused, at the handshake or a refresh: auth_failures_total{reason}. */
#define TG_AUTH_FAILURES(X)                                                                        \
	X(MISSING, "missing", "no token where the route asks for one")                             \
	X(MALFORMED, "malformed", "not a token, one without expiry, or two different ones")        \
	X(TOO_LARGE, "too_large", "a token above auth.token_size")                                 \
	X(ALGORITHM, "algorithm", "another algorithm than the key is configured for")              \
	X(UNKNOWN_KEY, "unknown_key", "signed by a key that is not configured")                    \
	X(SIGNATURE, "signature", "the signature is wrong")                                        \
	X(EXPIRED, "expired", "expired")                                                           \
	X(NOT_YET_VALID, "not_yet_valid", "not valid yet")                                         \
	X(AUDIENCE, "audience", "made for another audience")                                       \
	X(ISSUER, "issuer", "made by another issuer")                                              \
	X(SUBJECT, "subject", "a refresh with a token of somebody else")                           \
	X(BUSY, "busy", "too many tokens wait for a crypto thread, or no memory for one")

/* Why a client's request to the hub was refused; the name is what docs/hub-protocol.md calls it. */
#define TG_HUB_ERRORS(X)                                                                           \
	X(MALFORMED, "malformed", "not a JSON object of the hub's")                                \
	X(UNKNOWN_TYPE, "unknown_type", "no such type")                                            \
	X(BAD_TOPIC, "bad_topic", "not a topic")                                                   \
	X(FORBIDDEN, "forbidden", "the token does not allow it")                                   \
	X(NOT_SUBSCRIBED, "not_subscribed", "unsubscribe without a subscription")                  \
	X(TOO_MANY_TOPICS, "too_many_topics", "above hub.topics_per_session")                      \
	X(TOO_LARGE, "too_large", "above hub.payload_size")                                        \
	X(RATE_LIMITED, "rate_limited", "above hub.messages_per_second or bytes_per_second")       \
	X(UNAVAILABLE, "unavailable", "no memory for it, or draining")

#endif
