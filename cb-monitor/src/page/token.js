// The token that actions, and on some monitors the figures, need.

import { $, say } from "./dom.js";
import { known } from "./known.js";
import { emit } from "./signals.js";

let asked = false;      // whether the dialog for the token has been shown

export function keep(value) {
  known.token = value;
  if (value) sessionStorage.setItem("circuits-token", value); else sessionStorage.removeItem("circuits-token");
  say($("key"), value ? "Token ✓" : "Token");
}

export function needToken() {
  if (asked || $("token").open) return;
  asked = true;
  say($("headline"), "This monitor needs a token to show its figures");
  $("token").showModal();
}

$("key").addEventListener("click", () => { $("token-value").value = known.token; $("token").showModal(); });
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep($("token-value").value.trim());
  $("token").close();
  asked = false;
  emit("authorized");
});
$("token-forget").addEventListener("click", () => { keep(""); $("token").close(); });
