"use strict";

// Joins the parts: what the feed tells goes to what is shown, what is asked for by the address too.

const GATHER_MS = 150; // changes that come together are shown together
const REST_AFTER_MS = 60_000; // a tab in the background needs no connection
const PARTS = ["broker", "engine", "ledger", "lease", "dead_letters"];

const page = {
  tenants: new Map(), // tenant id -> its line
  incoming: null, // the same, while everything is told anew
  head: null, // what was told last of all together
  lost: "", // why nothing is heard; empty while something is
  heardAt: 0,
  isDue: false,
};

let signedIn = null; // the promise of those who wait for another token

const list = new List(() => {
  history.replaceState(null, "", list.address);
  showList();
});
const tenantView = new TenantView(() => showSignIn());

const feed = new Feed({
  onFrame(name, content) {
    page.heardAt = Date.now();
    frames[name]?.(content);
    showSoon();
  },
  onLost(why) {
    page.lost = why;
    page.incoming = null;
    showSoon();
  },
  onStranger: () => showSignIn(),
});

const frames = {
  head(content) {
    page.head = content;
    clock.ahead = Date.parse(content.at) - Date.now();
  },
  begin() {
    page.incoming = new Map();
    if (page.tenants.size === 0) page.tenants = page.incoming;
  },
  lines({ lines, gone = [] }) {
    const tenants = page.incoming ?? page.tenants;
    for (const line of lines) tenants.set(line.tenant_id, line);
    for (const tenantId of gone) tenants.delete(tenantId);
    const mine = tenantView.tenantId;
    const isMine = !page.incoming && (gone.includes(mine) || lines.some((line) => line.tenant_id === mine));
    if (mine && isMine) tenantView.renew(page.tenants.get(mine));
  },
  complete() {
    page.tenants = page.incoming;
    page.incoming = null;
    page.lost = "";
    list.isComplete = true;
    if (tenantView.tenantId) tenantView.renew(page.tenants.get(tenantView.tenantId));
  },
};

// --- showing

function showSoon() {
  if (page.isDue) return;
  page.isDue = true;
  setTimeout(() => {
    page.isDue = false;
    showTop();
    showList();
  }, GATHER_MS);
}

function showList() {
  if (!byId("list").hidden) list.show(page.tenants);
}

function showTop() {
  const { head } = page;
  const isHeard = head !== null && !page.lost;
  say(byId("link"), isHeard ? "live" : head ? "not live" : "connecting …");
  byId("link").hidden = signedIn !== null;
  byId("link").classList.toggle("lost", !isHeard);
  if (head) {
    say(byId("about"), `${head.instance} · ${head.version}`);
    for (const name of ["p50", "p95", "p99"]) say(byId(name), seconds(head.startups[name]));
    say(byId("starts"), count(head.startups.count));
    showParts(head.troubles, isHeard);
  }
  const alarms = alarmsOf(head, isHeard);
  // What is shown is fresh only while the consumer is heard and itself sees the engine.
  const isFresh = isHeard && !head.troubles.engine && !head.troubles.ledger && !head.troubles.lease;
  document.body.classList.toggle("stale", head !== null && !isFresh);
  showAlarms(alarms);
  const failed = [...page.tenants.values()].filter((line) => line.state === "failed").length;
  document.title = `${failed ? `(${failed} failed) ` : ""}${tenantView.tenantId ?? "Tenants"}`;
}

function showParts(troubles, isHeard) {
  const names = PARTS.filter((name) => name in troubles);
  byId("parts").replaceChildren(...names.map((name) => {
    const state = !isHeard ? "unknown" : troubles[name] ? "down" : "up";
    return make("li", { "data-part": state }, name.replace("_", " "), make("span", {}, ` ${state}`));
  }));
}

function alarmsOf(head, isHeard) {
  if (!isHeard) {
    if (!page.lost) return [];
    const since = head ? ` What is shown is as of ${exact(page.heardAt)}.` : "";
    return [`The consumer is not heard (${page.lost}).${since} Trying again …`];
  }
  const { engine, broker, ledger, lease, dead_letters: letters } = head.troubles;
  const alarms = [];
  if (lease) alarms.push(lease);
  if (ledger) alarms.push(ledger.startsWith("standing by") ? ledger : `The ledger cannot be written: ${ledger}`);
  if (engine) alarms.push(`The engine cannot be asked, states are as they were last seen: ${engine}`);
  if (broker) alarms.push(`The broker cannot be used, tenant events wait: ${broker}`);
  if (letters) alarms.push(`Dead letters are not taken: ${letters}`);
  return alarms;
}

function showAlarms(alarms) {
  const shown = byId("alarms");
  // Said again only when it is something else: it is read aloud each time.
  if (shown.dataset.said === alarms.join("\n")) return;
  shown.dataset.said = alarms.join("\n");
  shown.replaceChildren(...alarms.map((alarm) => make("p", { class: "alarm" }, alarm)));
}

// --- the token

function showSignIn() {
  signedIn ??= new Promise((resume) => {
    show("sign-in");
    byId("link").hidden = true;
    say(byId("sign-in-fault"), sessionStorage.getItem(TOKEN) ? "This is not the token." : "");
    sessionStorage.removeItem(TOKEN);
    byId("token").value = "";
    byId("token").focus();
    byId("sign-in-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(TOKEN, byId("token").value.trim());
      signedIn = null;
      goTo();
      resume();
    };
  });
  return signedIn;
}

// --- the address

function show(section) {
  for (const name of ["sign-in", "list", "tenant"]) byId(name).hidden = name !== section;
}

function goTo() {
  if (signedIn) return;
  const [, path, query] = /^#(\/[^?]*)\??(.*)$/.exec(location.hash) ?? ["", "/", ""];
  const found = /^\/tenants\/(.+)$/.exec(path);
  if (found) {
    show("tenant");
    byId("up").href = list.address;
    let tenantId = found[1];
    try { tenantId = decodeURIComponent(tenantId); } catch { /* shown as it is written */ }
    tenantView.open(tenantId, page.tenants.get(tenantId));
    byId("tenant-title").focus();
  } else {
    const cameFrom = tenantView.tenantId;
    tenantView.close();
    list.address = new URLSearchParams(query);
    show("list");
    showList();
    list.rows.get(cameFrom)?.querySelector("a").focus();
  }
  showTop();
}

window.addEventListener("hashchange", () => {
  if (location.hash.startsWith("#/") || location.hash === "") goTo();
});

window.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !isTyping && !byId("list").hidden) {
    event.preventDefault();
    byId("wanted").focus();
  }
  if (event.key === "Escape" && !byId("tenant").hidden) location.hash = byId("up").getAttribute("href");
  if (event.key === "Escape" && event.target === byId("wanted")) list.choose({ words: "" });
});

let rest = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(rest);
  if (document.hidden) rest = setTimeout(() => feed.rest(), REST_AFTER_MS);
  else if (feed.isResting) feed.goOn();
});
// A page that was left is kept by the browser, to be shown again as it was.
window.addEventListener("pagehide", () => feed.rest());
window.addEventListener("pageshow", (event) => {
  if (event.persisted) feed.goOn();
});

setInterval(() => {
  if (!byId("list").hidden) list.tick(page.tenants);
  tenantView.tick();
}, 1_000);

goTo();
feed.run();
