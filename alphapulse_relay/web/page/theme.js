// Dark or light: as the system has it, until the user says otherwise.

import { byId } from "./dom.js";

const KEY = "signal-relay-theme";

/** Set the theme, and return what switches it; `onChange` is called when it is another. */
export function setUpTheme(onChange) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const stored = localStorage.getItem(KEY);
  if (stored) root.dataset.theme = stored;
  const toggle = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem(KEY, root.dataset.theme);
    onChange();
  };
  system.addEventListener("change", onChange);
  byId("theme").addEventListener("click", toggle);
  return toggle;
}
