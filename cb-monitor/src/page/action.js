// The dialog of an action, and the token that actions need.

import { $, say } from "./dom.js";
import { headers, known } from "./known.js";
import { soon } from "./rows.js";
import { stream } from "./stream.js";
import { ACTIONS, count, rate } from "./words.js";

let order = null;
let asked = false;      // whether the dialog for the token has been shown

/** Shows what an action does and how many instances and calls it concerns, and asks for the reason. */
export function ask(action, { name, concerns }) {
  const about = ACTIONS[action];
  order = { action, name };
  say($("order-title"), `${about.title}: ${name}`);
  say($("order-what"), about.text);
  const calls = concerns.calls_per_second > 0 ? `${rate(concerns.calls_per_second)} calls a second` : "no calls";
  say($("order-radius"), `This concerns ${count(concerns.instances, "instance", "instances")}, with ${calls} at the moment.`);
  $("order-for-box").hidden = !about.expires;
  $("order-reason").value = "";
  $("order-actor").value = localStorage.getItem("circuits-actor") ?? "";
  $("order-token").value = known.token;
  $("order-token").parentElement.hidden = known.token !== "";
  $("order-error").hidden = true;
  const go = $("order-go");
  say(go, about.title);
  go.className = about.danger ? "danger" : "";
  go.disabled = false;
  $("order").showModal();
  $("order-reason").focus();
}

function refuse(message, field) {
  const error = $("order-error");
  say(error, message);
  error.hidden = false;
  field?.focus();
}

async function submit(event) {
  event.preventDefault();
  const reason = $("order-reason").value.trim();
  const actor = $("order-actor").value.trim();
  const given = $("order-token").value.trim();
  if (!reason) return refuse("Give a reason: it is shown to everybody who looks at this circuit.", $("order-reason"));
  if (!given) { $("order-token").parentElement.hidden = false; return refuse("An action needs the token of this monitor.", $("order-token")); }
  const body = { reason, actor };
  if (ACTIONS[order.action].expires && $("order-for").value) body.for = $("order-for").value;
  $("order-go").disabled = true;
  try {
    const response = await fetch(`breakers/${encodeURIComponent(order.name)}/${order.action}`, {
      method: "POST",
      headers: { ...headers({ "Content-Type": "application/json" }), Authorization: `Bearer ${given}` },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) {
      if (response.status === 401) { keep(""); $("order-token").parentElement.hidden = false; }
      refuse(answer.error, response.status === 401 ? $("order-token") : undefined);
      return;
    }
    keep(given);
    localStorage.setItem("circuits-actor", actor);
    $("order").close();
    soon(0);
  } catch {
    refuse("The monitor does not answer. The order may have arrived: check the circuit before you try again.");
  } finally {
    $("order-go").disabled = false;
  }
}

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
  stream();
  soon(0);
});
$("token-forget").addEventListener("click", () => { keep(""); $("token").close(); });
$("order-form").addEventListener("submit", submit);
$("order-cancel").addEventListener("click", () => $("order").close());
