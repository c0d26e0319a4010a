/* What the holder of the token may do. The token lives in this variable and in no address. */
let token = null;

async function act(method, path) {
    const r = await fetch(path, {method, headers: {Authorization: "Bearer " + token}, cache: "no-store", credentials: "omit"});
    const body = await r.json();
    if (!r.ok) throw new Error(body.error || "HTTP " + r.status);
    return body;
}

function actionSaid(text, bad) {
    $("action-said").className = bad ? "bad" : "";
    say($("action-said"), text);
}

/* True when the person agrees. */
function sure(text) {
    const dialog = $("sure-dialog");
    say($("sure-text"), text);
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise(done => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), {once: true}));
}

async function showLists() {
    const rows = [];
    for (const list of ["deny", "allow"])
        for (const e of await act("GET", "/v1/" + list)) rows.push({list, ...e});
    table($("lists"), "Entries of the lists", ["Prefix", "<List", "<From", "<Remove"], rows.map(e => [e.prefix, e.list, e.origin, {fill: td => {
        const b = make("button", "Remove");
        b.type = "button";
        b.setAttribute("aria-label", "Remove " + e.prefix + " from the " + e.list + " list");
        b.addEventListener("click", () => change("Take " + e.prefix + " out of the " + e.list + " list?",
            "/v1/" + e.list + "/del?prefix=" + encodeURIComponent(e.prefix), e.prefix + " is no longer in the " + e.list + " list."));
        td.replaceChildren(b);
    }}]), "Both lists are empty.");
}

async function change(question, path, done) {
    if (!await sure(question)) return;
    try {
        await act("POST", path);
        actionSaid(done);
        await showLists();
    } catch (e) {
        actionSaid(e.message + ".", true);
    }
}

function onGate(ev) {
    ev.preventDefault();
    const word = ev.submitter.value, rate = $("rate").value;
    if (word === "rate" && !/^\d+$/.test(rate)) return actionSaid("Give connections per second, 0 to 1,000,000.", true);
    const what = word === "rate" ? "Pace the gate to " + rate + " connections/s" : word === "auto" ? "Let the governor decide again" :
        word === "shut" ? "Shut the gate: nobody new is let in" : "Open the gate, whatever the delay is";
    change(what + "?", "/v1/gate/set?word=" + word + (word === "rate" ? "&rate=" + rate : ""), "Done: " + word + ".");
}

function onList(ev) {
    ev.preventDefault();
    const [list] = ev.submitter.value.split("/"), prefix = $("prefix").value.trim();
    if (!prefix) return actionSaid("Give a prefix, as 192.0.2.0/24.", true);
    change("Put " + prefix + " into the " + list + " list?", "/v1/" + ev.submitter.value + "?prefix=" + encodeURIComponent(prefix),
        prefix + " is in the " + list + " list.");
}

async function onToken(ev) {
    ev.preventDefault();
    token = $("token").value.trim();
    try {
        await showLists();
        $("token-dialog").close();
        $("actions").hidden = false;
        $("unlock").hidden = true;
        actionSaid("");
        $("gate-form").querySelector("button").focus();
    } catch (e) {
        token = null;
        say($("token-said"), e.message + ".");
    }
    $("token").value = "";
}

function lock() {
    token = null;
    $("actions").hidden = true;
    $("unlock").hidden = false;
    $("lists").replaceChildren();
    $("unlock").focus();
}

function actionsStart(allowed) {
    $("unlock").hidden = !allowed;
    $("unlock").addEventListener("click", () => {
        say($("token-said"), "");
        $("token-dialog").showModal();
    });
    $("token-cancel").addEventListener("click", () => $("token-dialog").close());
    $("token-form").addEventListener("submit", onToken);
    $("gate-form").addEventListener("submit", onGate);
    $("list-form").addEventListener("submit", onList);
    $("lock").addEventListener("click", lock);
}
