"use strict";

// All tenants: filtered, searched, sorted, a hundred at a time.

const PAGE = 100;
const STATES = ["failed", "pending", "stopped", "running"]; // the most urgent first
const text = (left, right) => (left < right ? -1 : left > right ? 1 : 0);
const byTenant = (left, right) => text(left.tenant_id, right.tenant_id);

const ORDERS = {
  state: ["State", (left, right) => STATES.indexOf(left.state) - STATES.indexOf(right.state)],
  tenant: ["Tenant", byTenant],
  reason: ["Reason", (left, right) => text(left.reason ?? "~", right.reason ?? "~")],
  health: ["Health", (left, right) => text(left.health ?? "~", right.health ?? "~")],
  image: ["Image", (left, right) => text(left.image ?? "~", right.image ?? "~")],
  restarts: ["Restarts", (left, right) => (right.restarts ?? 0) - (left.restarts ?? 0)],
  since: ["Since", (left, right) => text(right.since, left.since)],
  next: ["Next try", (left, right) => text(left.next_attempt_at ?? "~", right.next_attempt_at ?? "~")],
};

// What stands in each column: its heading, its order if it has one, and how a cell is filled.
const COLUMNS = [
  ["Tenant", "tenant", (cell, line) => fillTenant(cell, line)],
  ["State", "state", (cell, line) => fillState(cell, line)],
  ["Reason", "reason", (cell, line) => fillReason(cell, line)],
  ["Health", "health", (cell, line) => say(cell, line.health ?? "")],
  ["Image", "image", (cell, line) => fillImage(cell, line.image ?? "")],
  ["Ports", null, (cell, line) => fillLong(cell, (line.ports ?? []).map(portText).join(", "))],
  ["Restarts", "restarts", (cell, line) => say(cell, line.restarts ? count(line.restarts) : "")],
  ["Since", "since", (cell, line) => fillTime(cell, line.since, ago)],
  ["Next try", "next", (cell, line) => fillTime(cell, line.next_attempt_at, ahead)],
];

function fillLong(cell, content) {
  say(cell, content);
  if (cell.title !== content) cell.title = content;
}

// The name and its tag first: they tell more than the registry.
function fillImage(cell, image) {
  if (!cell.firstChild) cell.append(make("span"), make("small"));
  const [name, place] = cell.children;
  const cut = image.lastIndexOf("/") + 1;
  say(name, image.slice(cut));
  say(place, image.slice(0, cut));
  if (cell.title !== image) cell.title = image;
}

function fillTenant(cell, line) {
  if (!cell.firstChild) cell.append(make("a"));
  const link = cell.firstChild;
  say(link, line.tenant_id);
  link.href = `#/tenants/${encodeURIComponent(line.tenant_id)}`;
  link.title = line.tenant_id;
}

function fillState(cell, line) {
  if (!cell.firstChild) cell.append(stateMark(""), make("small"));
  const [mark, wanted] = cell.children;
  mark.dataset.state = line.state;
  say(mark, line.state);
  say(wanted, line.is_waiting && line.state !== "pending" ? `${line.desired} is wanted` : "");
}

function fillReason(cell, line) {
  if (!cell.firstChild) cell.append(make("span"), make("small"));
  const [reason, message] = cell.children;
  say(reason, line.reason ?? "");
  say(message, line.state === "failed" || line.reason === "rolled_back" ? line.message ?? "" : "");
  message.title = message.textContent;
}

function fillTime(cell, at, inWords) {
  if (!at) {
    cell.replaceChildren();
    return;
  }
  if (!cell.firstChild) cell.append(make("time"));
  const time = cell.firstChild;
  say(time, inWords(at));
  if (time.dateTime === at) return;
  time.dateTime = at;
  time.title = exact(at);
}

class List {
  // `onChoice` is called when what is shown was chosen anew.
  constructor(onChoice) {
    this.onChoice = onChoice;
    this.choice = { state: "", words: "", order: "state", page: 0 };
    this.rows = new Map(); // tenant id -> the row that shows it
    this.buttons = new Map(); // state -> its button
    this.headings = new Map(); // order -> its heading
    this.isComplete = false;
    this.makeCounts();
    this.makeHeadings();
    byId("wanted").addEventListener("input", (event) => this.choose({ words: event.target.value }));
    byId("search").addEventListener("submit", (event) => event.preventDefault());
    byId("order").addEventListener("change", (event) => this.choose({ order: event.target.value }));
    byId("back").addEventListener("click", () => this.turn(-1));
    byId("on").addEventListener("click", () => this.turn(1));
    byId("rows").addEventListener("keydown", (event) => this.step(event));
  }

  makeCounts() {
    for (const state of ["", ...STATES]) {
      const button = make("button", { type: "button", "data-state": state, "aria-pressed": "false" });
      button.append(make("b", {}, "–"), ` ${state || "all"}`);
      button.addEventListener("click", () => this.choose({ state }));
      this.buttons.set(state, button);
      byId("counts").append(button);
    }
  }

  makeHeadings() {
    for (const [name, order] of COLUMNS) {
      const heading = make("th", { role: "columnheader", scope: "col" });
      byId("columns").append(heading);
      if (!order) {
        heading.append(name);
        continue;
      }
      const button = make("button", { type: "button" }, name);
      button.addEventListener("click", () => this.choose({ order }));
      heading.append(button);
      this.headings.set(order, heading);
      byId("order").append(make("option", { value: order }, name));
    }
  }

  choose(change) {
    Object.assign(this.choice, { page: 0 }, change);
    this.onChoice();
    say(byId("told"), `${byId("found").textContent} shown`);
  }

  turn(pages) {
    this.choose({ page: this.choice.page + pages });
    byId("list").scrollIntoView();
    byId("rows").querySelector("a")?.focus();
  }

  // Up and down go from row to row.
  step(event) {
    const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = way && event.target.closest("tr")?.[way];
    if (!next) return;
    event.preventDefault();
    next.querySelector("a").focus();
  }

  // The choice as a part of the address, so that it can be kept and sent to somebody.
  get address() {
    const { state, words, order } = this.choice;
    const query = new URLSearchParams();
    if (state) query.set("state", state);
    if (words) query.set("search", words);
    if (order !== "state") query.set("sort", order);
    return query.size ? `#/?${query}` : "#/";
  }

  set address(query) {
    const before = this.address;
    const order = query.get("sort");
    Object.assign(this.choice, {
      state: STATES.includes(query.get("state")) ? query.get("state") : "",
      words: query.get("search") ?? "",
      order: Object.hasOwn(ORDERS, order) ? order : "state",
    });
    if (this.address !== before) this.choice.page = 0;
  }

  show(tenants) {
    this.showCounts(tenants);
    const found = this.find(tenants);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    this.choice.page = Math.min(this.choice.page, pages - 1);
    const begin = this.choice.page * PAGE;
    const shown = found.slice(begin, begin + PAGE);
    this.showRows(shown);
    this.showTools(tenants, found);
    byId("pages").hidden = pages === 1;
    byId("back").disabled = this.choice.page === 0;
    byId("on").disabled = this.choice.page === pages - 1;
    say(byId("place"), `${count(begin + 1)}–${count(begin + shown.length)} of ${count(found.length)}`);
  }

  showCounts(tenants) {
    const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
    for (const line of tenants.values()) counts[line.state] += 1;
    counts[""] = tenants.size;
    for (const [state, button] of this.buttons) {
      say(button.firstChild, this.isComplete ? count(counts[state]) : "…");
      button.setAttribute("aria-pressed", String(this.choice.state === state));
      button.classList.toggle("none", counts[state] === 0);
    }
  }

  find(tenants) {
    const { state, order } = this.choice;
    const words = this.choice.words.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (const line of tenants.values()) {
      if (state && line.state !== state) continue;
      line.words ??= [line.tenant_id, line.image, line.reason, line.message, line.health]
        .join(" ").toLowerCase();
      if (words.every((word) => line.words.includes(word))) found.push(line);
    }
    const compare = ORDERS[order][1];
    return found.sort((left, right) => compare(left, right) || byTenant(left, right));
  }

  showRows(shown) {
    const focused = document.activeElement;
    const body = byId("rows");
    const kept = new Map();
    let place = body.firstChild;
    for (const line of shown) {
      const row = this.rows.get(line.tenant_id) ?? this.makeRow();
      COLUMNS.forEach(([, , fill], number) => fill(row.cells[number], line));
      row.dataset.state = line.state;
      if (row === place) place = place.nextSibling;
      else body.insertBefore(row, place);
      kept.set(line.tenant_id, row);
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
    this.rows = kept;
    // A row that was moved has lost the focus, if it had it.
    if (focused !== document.activeElement && body.contains(focused)) {
      focused.focus({ preventScroll: true });
    }
  }

  makeRow() {
    const row = make("tr", { role: "row" });
    for (const [name] of COLUMNS) row.append(make("td", { role: "cell", "data-name": name }));
    return row;
  }

  showTools(tenants, found) {
    const { words, order, state } = this.choice;
    if (byId("wanted").value !== words) byId("wanted").value = words;
    byId("order").value = order;
    for (const [name, heading] of this.headings) {
      if (name === order) heading.setAttribute("aria-sort", "other");
      else heading.removeAttribute("aria-sort");
    }
    const isAll = found.length === tenants.size;
    say(byId("found"), isAll ? `${count(tenants.size)} tenants` : `${count(found.length)} of ${count(tenants.size)} tenants`);
    byId("empty").hidden = found.length > 0;
    if (found.length > 0) return;
    if (!this.isComplete) say(byId("empty"), "Reading …");
    else if (words || state) say(byId("empty"), "No tenant is like that.");
    else say(byId("empty"), "No tenants yet. One appears here as soon as an event for it is published.");
  }

  // Times go on also while nothing happens.
  tick(tenants) {
    for (const [tenantId, row] of this.rows) {
      const line = tenants.get(tenantId);
      if (!line) continue;
      COLUMNS.at(-2)[2](row.cells[row.cells.length - 2], line);
      COLUMNS.at(-1)[2](row.cells[row.cells.length - 1], line);
    }
  }
}
