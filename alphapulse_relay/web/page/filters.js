// A button that opens a list of numbers with names, of which any may be chosen; none are all.

import { element, matchChildren, setText } from "./dom.js";

/**
 * `button` and `list` are elements, `noun` what is chosen, in the plural; `options()` returns
 * [{number, name, className}]; `onChange` is called when the choice changes.
 */
export class FilterMenu {
  chosen = new Set();
  #button;
  #list;
  #noun;
  #options;
  #onChange;

  constructor({ button, list, noun, options, onChange }) {
    this.#button = button;
    this.#list = list;
    this.#noun = noun;
    this.#options = options;
    this.#onChange = onChange;
    this.#button.addEventListener("click", () => this.#toggle(this.#list.hidden));
    this.#list.addEventListener("change", ({ target }) => this.#choose(target));
    button.parentElement.addEventListener("keydown", (event) => this.#key(event));
    // To where a press of the pointer moves the focus says nothing: it may be an outer part.
    for (const name of ["focusin", "pointerdown"]) {
      document.addEventListener(name, ({ target }) => {
        if (!target.contains(this.#button) && !this.#button.parentElement.contains(target)) {
          this.#toggle(false);
        }
      });
    }
  }

  /** As the query wants it: "21,22", or "" for all. */
  get text() {
    return [...this.chosen].sort((one, other) => one - other).join(",");
  }

  clear() {
    this.chosen.clear();
    this.#show();
  }

  #toggle(open) {
    this.#list.hidden = !open;
    this.#button.setAttribute("aria-expanded", String(open));
    if (open) this.#fill();
  }

  #fill() {
    const options = this.#options();
    matchChildren(this.#list, options, makeOption, (node, { number, name, className }) => {
      const [box, swatch, text, figure] = node.children;
      box.value = number;
      box.checked = this.chosen.has(number);
      swatch.className = `swatch ${className}`;
      setText(text, name);
      setText(figure, name.endsWith(` ${number}`) ? "" : String(number));
    });
  }

  #choose(box) {
    if (box.checked) this.chosen.add(Number(box.value));
    else this.chosen.delete(Number(box.value));
    this.#show();
    this.#onChange();
  }

  #show() {
    const names = new Map(this.#options().map(({ number, name }) => [number, name]));
    const chosen = [...this.chosen];
    const [first] = chosen;
    const several = chosen.length ? `${chosen.length} ${this.#noun}` : `All ${this.#noun}`;
    setText(this.#button, chosen.length === 1 ? names.get(first) ?? String(first) : several);
    this.#button.classList.toggle("on", chosen.length > 0);
  }

  #key(event) {
    const boxes = [...this.#list.querySelectorAll("input")];
    const at = boxes.indexOf(document.activeElement);
    if (event.key === "Escape" && !this.#list.hidden) {
      this.#toggle(false);
      this.#button.focus();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (this.#list.hidden) this.#toggle(true);
      const step = event.key === "ArrowDown" ? 1 : -1;
      const all = this.#list.querySelectorAll("input");
      all[(at + step + all.length) % all.length]?.focus();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

function makeOption() {
  const box = element("input", { type: "checkbox" });
  const parts = ["", "name", "muted number"].map((className) => element("span", { className }));
  return element("label", {}, box, ...parts);
}
