"use strict";

// One tenant: all that is known of it, what was told of it before, and what it wrote last.

const READ_AGAIN_MS = 1_000; // at most so often, however much happens

const FACTS = [
  ["Wanted", (known) => known.desired],
  ["Health", (known) => known.health],
  ["Image", (known) => known.container?.image],
  ["Container", (known) => known.container?.name],
  ["Ports", (known) => known.ports.map(wholePort).join("\n")],
  ["Started", (known) => known.container?.started_at && moment(known.container.started_at)],
  ["Ended", (known) => known.container?.finished_at && moment(known.container.finished_at)],
  ["Exit code", (known) => exitText(known.container)],
  ["Restarts", (known) => known.container && String(known.container.restart_count)],
  ["Attempt", (known) => (known.attempt > 1 || known.will_retry ? String(known.attempt) : "")],
  ["Next attempt", (known) => known.next_attempt_at && `${ahead(known.next_attempt_at)} (${exact(known.next_attempt_at)})`],
  ["Changed", (known) => known.changes.join(", ")],
  ["Start took", (known) => known.startup_seconds !== null && seconds(known.startup_seconds)],
  ["Generation", (known) => known.generation !== null && String(known.generation)],
  ["Event", (known) => known.event_id],
  ["Told", (known) => known.occurred_at && moment(known.occurred_at)],
  ["Last seen", (known) => known.observed_at && moment(known.observed_at)],
  ["Container id", (known) => known.container?.id],
  ["Image id", (known) => known.container?.image_id],
];

const moment = (at) => `${exact(at)} (${ago(at)})`;

function wholePort(port) {
  const name = port.name ? `${port.name}: ` : "";
  const host = port.host_port ? `${port.host_ip}:${port.host_port} → ` : "not published: ";
  return `${name}${host}${port.container_port}/${port.protocol}`;
}

function exitText(container) {
  if (!container || container.exit_code === null) return "";
  return `${container.exit_code}${container.oom_killed ? " (killed at its memory limit)" : ""}`;
}

class TenantView {
  constructor(onStranger) {
    this.onStranger = onStranger;
    this.tenantId = null;
    this.known = null;
    this.newest = null; // the sequence of the newest status in the history
    this.line = null;
    this.isReading = false;
    this.isOutdated = false;
    byId("read-log").addEventListener("click", () => this.readLog());
  }

  get path() { return `tenants/${encodeURIComponent(this.tenantId)}`; }

  open(tenantId, line) {
    this.close();
    this.tenantId = tenantId;
    this.leaving = new AbortController();
    this.known = null;
    this.newest = null;
    this.line = line;
    say(byId("tenant-title"), tenantId);
    say(byId("tenant-fault"), "");
    byId("tenant-known").hidden = true;
    byId("history").replaceChildren();
    byId("log").hidden = true;
    this.read();
    this.readLog();
  }

  close() {
    this.leaving?.abort();
    this.tenantId = null;
  }

  // Something happened to it, or may have while nobody listened.
  renew(line) {
    if (line?.state !== this.line?.state) this.readLog();
    this.line = line;
    this.read();
  }

  async read() {
    if (this.isReading) {
      this.isOutdated = true;
      return;
    }
    this.isReading = true;
    const { tenantId, leaving } = this;
    try {
      const [known, { history }] = await Promise.all([
        ask(`${this.path}/compute/status`, leaving.signal),
        ask(`${this.path}/history`, leaving.signal),
      ]);
      if (tenantId === this.tenantId) this.show(known, history);
    } catch (error) {
      if (error instanceof Unauthorized) this.onStranger();
      else if (tenantId === this.tenantId) this.showFault(error);
    }
    await new Promise((resume) => setTimeout(resume, tenantId === this.tenantId ? READ_AGAIN_MS : 0));
    this.isReading = false;
    if ((this.isOutdated || tenantId !== this.tenantId) && this.tenantId) {
      this.isOutdated = false;
      this.read();
    }
  }

  showFault(error) {
    say(byId("tenant-fault"), error.status === 404
      ? "No such tenant is known. It may have been deleted long ago."
      : `This could not be read: ${error.message}`);
    if (error.status === 404) byId("tenant-known").hidden = true;
  }

  show(known, history) {
    this.known = known;
    say(byId("tenant-fault"), "");
    byId("tenant-known").hidden = false;
    const state = byId("tenant-state");
    state.replaceChildren(stateMark(known.state), ` ${known.reason ?? "not told of yet"}`);
    say(byId("tenant-message"), known.message);
    byId("tenant-message").hidden = !known.message;
    this.showFacts();
    const newest = history[0]?.sequence;
    if (newest === this.newest) return;
    this.newest = newest;
    byId("history").replaceChildren(...history.map((status) => this.historyRow(status)));
  }

  showFacts() {
    const since = this.line?.since;
    say(byId("tenant-since"), since ? `since ${exact(since)} (${ago(since)})` : "");
    const facts = FACTS.map(([name, read]) => [name, read(this.known)]).filter(([, fact]) => fact);
    const list = byId("facts");
    while (list.children.length > facts.length) list.lastChild.remove();
    facts.forEach(([name, fact], number) => {
      if (!list.children[number]) list.append(make("div", {}, make("dt"), make("dd")));
      const [term, definition] = list.children[number].children;
      say(term, name);
      say(definition, fact);
      list.children[number].classList.toggle("wide", name.endsWith(" id"));
    });
  }

  historyRow(status) {
    const cells = [
      make("time", { datetime: status.occurred_at }, exact(status.occurred_at)),
      stateMark(status.state),
      status.reason,
      status.message,
    ];
    const names = ["When", "State", "Reason", "Message"];
    const row = make("tr", { role: "row" });
    cells.forEach((content, number) => {
      row.append(make("td", { role: "cell", "data-name": names[number] }, content));
    });
    return row;
  }

  async readLog() {
    const { tenantId, leaving } = this;
    const note = byId("log-note");
    say(note, "Reading …");
    byId("read-log").disabled = true;
    let words;
    try {
      const { log } = await ask(`${this.path}/log`, leaving.signal);
      if (tenantId !== this.tenantId) return;
      byId("log").hidden = !log;
      byId("log").textContent = log ?? "";
      byId("log").scrollTop = byId("log").scrollHeight;
      words = log === null ? "There is no container."
        : log === "" ? "The container wrote nothing, or its log cannot be read."
        : `As of ${exact(clock.now())}. Values of its environment and its secrets are shown as ***.`;
    } catch (error) {
      if (error instanceof Unauthorized) this.onStranger();
      if (tenantId !== this.tenantId) return;
      // Lines that were read before are not those of now.
      byId("log").hidden = true;
      words = `The log cannot be read: ${error.message}`;
    } finally {
      byId("read-log").disabled = false;
    }
    say(note, words);
  }

  tick() {
    if (this.tenantId && this.known) this.showFacts();
  }
}
