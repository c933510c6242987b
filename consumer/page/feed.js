"use strict";

// Reads from the consumer. A browser sends no token by itself, so everything goes by fetch.

const TOKEN = "landlord-token";
const SILENCE_MS = 10_000; // the consumer gives a sign of life every two seconds
const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 5_000;

class Unauthorized extends Error {}

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  if (!token) return {};
  // A header is bytes: the token's, whatever characters it has.
  const bytes = new TextEncoder().encode(token);
  return { Authorization: `Bearer ${String.fromCharCode(...bytes)}` };
}

async function request(path, signal) {
  const response = await fetch(path, { headers: headers(), cache: "no-store", signal });
  if (response.status === 401) throw new Unauthorized();
  return response;
}

// Returns the JSON document at the path; throws with the consumer's own words where there is none.
async function ask(path, signal) {
  const response = await request(path, signal);
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.message), { status: response.status });
  return answer;
}

// Follows the stream of everything that happens, for ever. `listener` has onFrame(name, content),
// onLost(why) at each end of the stream, and async onStranger(), which returns once there is
// another token to try.
class Feed {
  constructor(listener) {
    this.listener = listener;
    this.retryMs = FIRST_RETRY_MS;
    this.isResting = false; // whether it is to have no connection
    this.isAsleep = false; // whether it waits to be woken
    this.letGo = () => {};
    this.wake = () => {};
  }

  async run() {
    for (;;) {
      if (this.isResting) await this.sleep();
      try {
        await this.read();
        this.listener.onLost("it ended the connection");
      } catch (error) {
        if (error instanceof Unauthorized) {
          await this.listener.onStranger();
          continue;
        }
        this.listener.onLost(this.isResting ? "this tab was in the background"
          : error.name === "AbortError" ? "nothing came any more" : error.message);
      }
      await new Promise((resume) => setTimeout(resume, this.retryMs));
      this.retryMs = Math.min(this.retryMs * 2, LAST_RETRY_MS);
    }
  }

  async sleep() {
    this.isAsleep = true;
    await new Promise((resume) => { this.wake = resume; });
    this.isAsleep = false;
  }

  // Lets go of the connection: a browser has only six of them to one address, for all its tabs.
  rest() {
    this.isResting = true;
    this.letGo();
  }

  goOn() {
    this.isResting = false;
    this.retryMs = FIRST_RETRY_MS;
    this.wake();
  }

  async read() {
    const stop = new AbortController();
    this.letGo = () => stop.abort();
    let alarm = setTimeout(this.letGo, SILENCE_MS);
    try {
      const response = await request("events", stop.signal);
      if (!response.ok) throw new Error((await response.json()).message);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let waiting = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(alarm);
        alarm = setTimeout(this.letGo, SILENCE_MS);
        const frames = (waiting + value).split("\n\n");
        waiting = frames.pop();
        for (const frame of frames) this.take(frame);
      }
    } finally {
      clearTimeout(alarm);
      stop.abort();
    }
  }

  take(frame) {
    const [event, data] = frame.split("\n");
    this.retryMs = FIRST_RETRY_MS;
    this.listener.onFrame(event.slice("event: ".length), JSON.parse(data.slice("data: ".length)));
  }
}
