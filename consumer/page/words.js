"use strict";

// How things are said and put into the document. Whatever a tenant wrote goes in as text alone.

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Writes only what is new: an unchanged node keeps its focus, its selection and its place.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const clock = {
  ahead: 0, // how far the consumer's clock is ahead of this one, in milliseconds
  now() { return Date.now() + this.ahead; },
};

function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 100) return `${seconds} s`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const ago = (at) => `${span(clock.now() - Date.parse(at))} ago`;

function ahead(at) {
  const left = Date.parse(at) - clock.now();
  return left > 0 ? `in ${span(left)}` : "now";
}

function exact(at) {
  return new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  return `${value < 10 ? value.toFixed(2) : Math.round(value)} s`;
}

const count = (number) => number.toLocaleString("en");

const portText = ([host, container, protocol]) =>
  `${host ? `${host}→` : ""}${container}${protocol === "tcp" ? "" : `/${protocol}`}`;

function stateMark(state) {
  return make("span", { class: "state", "data-state": state }, state);
}
