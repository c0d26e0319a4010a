/* Tables: rows of texts, or of {text, cls}. Cells are kept and only their texts change. */
function table(into, caption, columns, rows, none) {
    if (!rows.length) {
        if (!into.querySelector(".none")) into.replaceChildren(make("p", "", "none"));
        say(into.firstChild, none || "Nothing yet.");
        return;
    }
    let t = into.querySelector("table");
    if (!t || t.dataset.columns !== columns.join()) {
        t = make("table");
        t.dataset.columns = columns.join();
        const tr = make("tr");
        columns.forEach((c, i) => {
            const th = make("th", c.replace(/^</, ""), !i || c.startsWith("<") ? "t" : "");
            th.scope = "col";
            tr.append(th);
        });
        t.append(make("caption"), make("thead"), make("tbody"));
        t.tHead.append(tr);
        into.replaceChildren(t);
    }
    say(t.caption, caption);
    const body = t.tBodies[0];
    while (body.rows.length > rows.length) body.lastChild.remove();
    rows.forEach((row, r) => {
        const tr = body.rows[r] || body.appendChild(make("tr"));
        row.forEach((cell, i) => {
            const c = cell !== null && typeof cell === "object" ? cell : {text: cell};
            let td = tr.cells[i];
            if (!td) {
                td = make(i ? "td" : "th");
                if (!i) td.scope = "row";
                tr.append(td);
            }
            const cls = ((columns[i].startsWith("<") || !i ? "t " : "") + (c.cls || "")).trim();
            if (td.className !== cls) td.className = cls;
            if (c.fill) c.fill(td);
            else say(td, String(c.text));
        });
    });
}

const quiet = (v, text) => ({text, cls: v ? "" : "zero"});
const rate = v => quiet(v, count(v));

function busyCell(v) {
    return {fill: td => {
        if (!td.querySelector("meter")) td.replaceChildren(make("meter"), make("span"));
        td.firstChild.value = v;
        td.firstChild.setAttribute("aria-hidden", "true");
        say(td.lastChild, percent(v));
    }};
}

function showWorkers(live) {
    const target = live.gate.target_ns || 5e6, late = ns => ({text: delay(ns), cls: ns > target ? "late" : ""});
    table($("workers"), "Delays and rates of the last second; a delay above " + delay(target) + " is marked",
        ["Worker", "Connections", "Handshaking", "Runnable", "Busy", "Accepts/s", "Closes/s", "In/s", "Out/s", "Delay p50", "p99",
         "longest", "Wake p99", "Yields/s", "Buffers", "Rings"],
        live.workers.map(w => [w.worker, count(w.connections), rate(w.handshaking), rate(w.runnable), busyCell(w.busy),
            rate(w.accepts_per_s), rate(w.closes_per_s), rate(w.messages_in_per_s), rate(w.messages_out_per_s),
            late(w.poll_delay_p50_ns), late(w.poll_delay_p99_ns), late(w.poll_delay_max_ns),
            w.wake_delay_p99_ns === null ? {text: "off", cls: "zero"} : late(w.wake_delay_p99_ns),
            rate(w.forced_yields_per_s), bytes(w.heap_bytes), w.rings]));
}

function showVerdicts(live) {
    const list = [...live.verdicts].sort((a, b) => b.refuses - a.refuses || b.per_s - a.per_s || b.total - a.total);
    table($("verdicts"), "By reason, refusals first; observed are those that observe mode did not carry out",
        ["Reason", "<Program", "<Refuses", "Per second", "Total", "Observed"],
        list.map(v => [v.reason, v.program, v.refuses ? {text: "yes", cls: v.per_s ? "bad" : ""} : quiet(0, "no"), rate(v.per_s),
                       count(v.total), rate(v.observed)]),
        live.gate.mode === "off" ? "Admission is off (admission.mode)." : "No connection has been judged yet.");
}

function showSources(live) {
    const none = live.sources ? "No source is known yet." : "Sources are counted where the gate is in the kernel (admission.mode: kernel).";
    table($("sources"), "The 20 with the most connections and churn", ["Prefix", "Open", "Churn/s", "Accepts", "Closes", "Strikes", "Penalty left"],
        (live.sources || []).map(s => [s.prefix, count(s.open), rate(s.churn_per_s), count(s.accepts), count(s.closes), rate(s.strikes),
            s.penalty_left_ms ? {text: span(s.penalty_left_ms / 1000 + 1), cls: "bad"} : quiet(0, "none")]), none);
}

function showRoutes(live) {
    table($("routes"), "Sessions by route; dropped are messages that an out queue had no room for",
        ["Path", "<Upstream", "<Policy", "Sessions", "Dropped/s", "Dropped"],
        live.routes.map(r => [r.path, r.upstream, r.policy, count(r.connections),
                              {text: count(r.dropped_per_s), cls: r.dropped_per_s ? "bad" : "zero"}, rate(r.dropped)]));
}

function showLinks(live) {
    table($("links"), "Links to services, of all workers together",
        ["Endpoint", "<Upstream", "Up", "Sessions", "Queued", "Round trip", "<State"],
        (live.links || []).map(l => [l.endpoint, l.upstream, {text: l.up + " of " + l.links, cls: l.up < l.links ? "bad" : ""},
            count(l.sessions), l.queued_bytes ? bytes(l.queued_bytes) : quiet(0, "0"), l.rtt_us ? delay(l.rtt_us * 1000) : "–",
            {text: l.last_error && l.up < l.links ? l.state + ": " + l.last_error : l.state, cls: "wrap"}]),
        live.links_error ? "Unknown: " + live.links_error + "." : "No route goes to a service.");
}
