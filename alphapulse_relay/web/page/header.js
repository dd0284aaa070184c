// The bar at the top: who the relay is, whether it answers, whether anything is wrong.

import { byId, setText } from "./dom.js";
import { counted, dateTime, duration, timeOfDay } from "./formats.js";

const STATES = {
  connecting: () => "connecting",
  live: () => "live",
  gone: (link) => `relay gone since ${timeOfDay(link.since)}, trying again`,
  back: (link) => `relay back since ${timeOfDay(link.since)}, was gone ${duration(link.absence)}`,
  restarted: (link) => {
    const gone = link.absence ? ` (gone ${duration(link.absence)})` : "";
    return `the relay was restarted at ${timeOfDay(link.startedAt)}${gone}`;
  },
  refused: (link) => `the relay refuses: ${link.answer}`,
  locked: () => "the relay wants a token",
};

/** Draw the bar; `status` is null before the first, `troubles` what findTroubles told. */
export function drawHeader(link, status, troubles) {
  const state = byId("state");
  setText(state, STATES[link.state](link));
  state.dataset.state = link.state;
  document.body.classList.toggle("gone", link.state === "gone");
  drawHealth(link, status, troubles);
  drawTitle(link, troubles);
  if (status === null) return;
  setText(byId("version"), status.version);
  byId("version").title = `${status.build}, pid ${status.pid}`;
  const uptime = byId("uptime");
  setText(uptime, link.state === "gone" ? "\u2013" : duration(link.now - status.started_at));
  uptime.title = `since ${dateTime(status.started_at)}`;
}

/** Tell the style sheet how high the bar is: it wraps where there is little room. */
export function followBar() {
  const bar = document.querySelector(".bar");
  const { style } = document.documentElement;
  new ResizeObserver(() => style.setProperty("--bar", `${bar.offsetHeight}px`)).observe(bar);
}

function drawHealth(link, status, troubles) {
  const health = byId("health");
  const { level, text } = judge(link, status, troubles);
  setText(health, text);
  health.dataset.health = level;
}

function judge(link, status, troubles) {
  if (!link.answers && status !== null) {
    return { level: "unknown", text: "health not known" };
  }
  if (status === null) return { level: "unknown", text: "health not known yet" };
  const wrong = troubles.filter((trouble) => trouble.now);
  if (wrong.length === 0) return { level: "ok", text: "ok" };
  const level = wrong.some((trouble) => trouble.severe) ? "bad" : "warn";
  const others = wrong.length > 1 ? `, and ${counted(wrong.length - 1, "more", "more")}` : "";
  return { level, text: `${wrong[0].title}${others}` };
}

function drawTitle(link, troubles) {
  const mark = link.state === "gone" ? "gone: " : troubles.some((it) => it.now) ? "! " : "";
  const title = `${mark}Signal Relay`;
  if (document.title !== title) document.title = title;
}
