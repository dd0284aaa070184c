// Asks the user for the token that the relay wants.

import { byId, setText } from "./dom.js";

const UNKNOWN = "The relay does not know that token. Is it the one of --web-token-file?";

/** Return what opens the form; `onToken` gets what was typed. */
export function setUpTokenForm(onToken) {
  const dialog = byId("token-dialog");
  const field = byId("token");
  // Without a token there is nothing to be seen behind it.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
    onToken(field.value.trim());
    field.value = "";
  });
  return (tried) => {
    if (dialog.open) return;
    if (tried) setText(byId("token-text"), UNKNOWN);
    dialog.showModal();
    field.focus();
  };
}
