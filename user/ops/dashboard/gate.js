/* The gate: its state, and why, as a sentence and the figures that it rests on. */
function gateSentence(g) {
    const limit = g.rate === null ? "" : count(g.rate) + " connections/s", share = percent(g.handshake_share);
    const against = delay(g.delay_ns) + " against " + delay(g.target_ns);
    if (g.state === "off") return "Admission is off: everybody is let in, and nothing is refused (admission.mode).";
    const watch = g.mode === "observe" ? " Observe mode: nobody is refused for it." : "";
    if (g.reason === "operator") return "By an operator's word (" + g.word + (limit && g.word === "rate" ? ", " + limit : "") +
        "). The governor does not decide until the word is auto." + watch;
    if (g.reason === "memory") return "Memory is above its high-water mark; newcomers wait until it is below." + watch;
    if (g.reason === "permits") return count(g.unserved) + " connections wait for their handshake, " + count(g.permits) + " may." + watch;
    if (g.reason === "delay" && g.state === "shut") return "The standing delay is or was more than twice its target: " + against +
        ". Handshakes take " + share + " of busy time. Only " + (limit || "nobody") + " goes in, to probe." + watch;
    if (g.reason === "delay" && g.delay_ns > g.target_ns) return "The standing delay is above its target, " + against +
        ", and handshakes take " + share + " of busy time. Newcomers are let in at " + limit + "." + watch;
    if (g.reason === "delay") return "The standing delay was above its target and is back, " + against + ". Newcomers are let in at " +
        limit + ", more while it stays there. Handshakes take " + share + " of busy time." + watch;
    return "Nothing asks for less: the standing delay is " + delay(g.delay_ns) + ", the target " + delay(g.target_ns) + "." + watch;
}

function facts(list, pairs) {
    if (list.children.length !== pairs.length)
        list.replaceChildren(...pairs.map(() => {
            const d = make("div");
            d.append(make("dt"), make("dd"));
            return d;
        }));
    pairs.forEach(([name, value], i) => {
        say(list.children[i].firstChild, name);
        say(list.children[i].lastChild, value);
    });
}

function showGate(live) {
    const g = live.gate, m = live.memory, words = {open: "Open", paced: "Paced", shut: "Shut", off: "Off"};
    $("gate").dataset.state = g.state;
    say($("gate-word"), words[g.state] || g.state);
    say($("gate-rate"), g.state === "off" ? "no admission" : g.rate === null ? "no limit" : count(g.rate) + " connections/s");
    /* It is announced when it changes: without the figures that always do. */
    const now = [g.state, g.reason, g.word].join();
    if ($("gate").dataset.now !== now) {
        $("gate").dataset.now = now;
        $("gate-sentence").setAttribute("aria-live", "polite");
    } else {
        $("gate-sentence").setAttribute("aria-live", "off");
    }
    say($("gate-sentence"), gateSentence(g));
    const pairs = [
        ["Standing delay / target", delay(g.delay_ns) + " / " + delay(g.target_ns)],
        ["Handshake share / cut above", percent(g.handshake_share) + " / " + percent(g.handshake_share_min)],
        ["Handshakes completed", count(g.goodput_per_s) + "/s"],
        ["Not yet served", count(g.unserved) + (g.permits === null ? "" : " of " + count(g.permits))],
        ["Memory / shut above", percent(m.pressure) + " / " + percent(m.limit)],
        ["Cuts, shuts, holds", [g.cuts, g.shuts, g.holds].map(count).join(", ")],
        ["Decided in", g.where === "kernel" ? "kernel" : "user space"],
        ["Operator's word", g.word],
    ];
    facts($("gate-facts"), g.state === "off" ? [] : pairs);
}

const peaks = {};

function tile(name, key, value, format, note) {
    peaks[key] = (peaks[key] || []).concat(value === null ? 0 : value).slice(-HISTORY);
    return {name, value: format(value), note: note || "most " + format(Math.max(...peaks[key])) + " in " + span(peaks[key].length)};
}

function showTiles(live) {
    const w = live.workers, target = live.gate.target_ns || 5e6, p99 = most(w, "poll_delay_p99_ns");
    const tiles = [
        tile("Connections", "conns", sum(w, "connections"), count),
        tile("Worst poll delay p99", "delay", p99, delay),
        tile("Runnable", "runnable", sum(w, "runnable"), count),
        tile("Accepts/s", "accepts", sum(w, "accepts_per_s"), count),
        tile("Closes/s", "closes", sum(w, "closes_per_s"), count),
        tile("Messages in/s", "in", sum(w, "messages_in_per_s"), count),
        tile("Memory/connection", "memory", live.memory.per_connection, bytes, "process " + bytes(live.memory.rss)),
    ];
    const list = $("tile-list");
    if (!list.children.length)
        list.replaceChildren(...tiles.map(() => {
            const d = make("div");
            d.append(make("dt"), make("dd"), make("dd"));
            return d;
        }));
    tiles.forEach((t, i) => {
        const [dt, value, note] = list.children[i].children;
        say(dt, t.name);
        say(value, t.value);
        say(note, t.note);
    });
    list.children[1].className = p99 > target ? "late" : "";
}

/* As the gateway writes it into its log. */
function showLine(live) {
    const l = live.line;
    if (!l) return say($("line"), "The first interval has not ended yet.");
    say($("line"), "sched_poll_delay_p99=" + delay(l.sched_poll_delay_p99_ns).replace(" ", "") + " runnable_tasks=" + count(l.runnable_tasks) +
        " accepts=" + count(l.accepts_per_s) + "/s closes=" + count(l.closes_per_s) + "/s conns=" + count(l.conns) + " gate=" + l.gate +
        " admitted=" + count(l.admitted) + " refused=" + count(l.refused) + " forced_yields=" + count(l.forced_yields) + " dropped=" +
        count(l.dropped) + "  (the last " + count(l.interval_s) + " s)");
}
