// The keyboard: keys that hold anywhere on the page but in fields.

import { byId, takesKey } from "./dom.js";

const SECTIONS = ["flow-section", "trouble-section", "peers-section", "signals-section"];

/** Listen for keys; `signals`, `lookBack` and `toggleTheme` are what they act on. */
export function listenForKeys({ signals, lookBack, toggleTheme }) {
  const help = byId("help");
  byId("help-open").addEventListener("click", () => help.showModal());
  const actions = {
    " ": () => signals.togglePause(),
    j: () => signals.move(1),
    k: () => signals.move(-1),
    b: () => lookBack.toggle(),
    l: () => signals.backToLive(),
    t: toggleTheme,
    "?": () => help.showModal(),
    "/": () => byId("filter-text").focus(),
  };
  SECTIONS.forEach((id, index) => {
    actions[index + 1] = () => goTo(id);
  });
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey) return;
    if (document.querySelector("dialog[open]")) return;
    const action = actionFor(event, actions, signals, lookBack);
    if (action && action() !== false) event.preventDefault();
  });
}

function actionFor({ key, target }, actions, signals, lookBack) {
  if (key === "Escape") return () => escape(target, signals, lookBack);
  if (takesKey(target, key)) return undefined;
  if (key === "Enter") return () => signals.openDetails();
  if (byId("signals").contains(target) && key === "ArrowDown") return actions.j;
  if (byId("signals").contains(target) && key === "ArrowUp") return actions.k;
  return actions[key];
}

function escape(target, signals, lookBack) {
  if (target === byId("filter-text")) leaveText(target, signals);
  else if (lookBack.open && byId("lookback").contains(target)) lookBack.toggle(false);
  else return signals.escape();
  return true;
}

function leaveText(field, signals) {
  if (!signals.clearText()) field.blur();
}

/** Bring a section to the top and the focus into it. */
function goTo(id) {
  const section = byId(id);
  section.scrollIntoView({ block: "start" });
  const table = id === "signals-section" ? byId("signals") : section;
  table.focus({ preventScroll: true });
}
