// The dialog of an action.

import { $, say } from "./dom.js";
import { headers, known } from "./known.js";
import { emit } from "./signals.js";
import { keep } from "./token.js";
import { ACTIONS, count, rate } from "./words.js";

let chosen = null;      // the action that the dialog is about, and the breaker's name

/** Shows what an action does and how many instances and calls it concerns, and asks for the reason. */
export function ask(action, { name, concerns }) {
  const about = ACTIONS[action];
  chosen = { action, name };
  say($("action-title"), `${about.title}: ${name}`);
  say($("action-what"), about.text);
  const calls = concerns.calls_per_second > 0 ? `${rate(concerns.calls_per_second)} calls a second` : "no calls";
  say($("action-radius"), `This concerns ${count(concerns.instances, "instance", "instances")}, with ${calls} at the moment.`);
  $("action-for-box").hidden = !about.expires;
  $("action-reason").value = "";
  $("action-actor").value = localStorage.getItem("circuits-actor") ?? "";
  $("action-token").value = known.token;
  $("action-token").parentElement.hidden = known.token !== "";
  $("action-error").hidden = true;
  const go = $("action-go");
  say(go, about.title);
  go.className = about.danger ? "danger" : "";
  go.disabled = false;
  $("action").showModal();
  $("action-reason").focus();
}

function refuse(message, field) {
  const error = $("action-error");
  say(error, message);
  error.hidden = false;
  field?.focus();
}

async function submit(event) {
  event.preventDefault();
  const reason = $("action-reason").value.trim();
  const actor = $("action-actor").value.trim();
  const given = $("action-token").value.trim();
  if (!reason) return refuse("Give a reason: it is shown to everybody who looks at this circuit.", $("action-reason"));
  if (!given) { $("action-token").parentElement.hidden = false; return refuse("An action needs the token of this monitor.", $("action-token")); }
  const body = { reason, actor };
  if (ACTIONS[chosen.action].expires && $("action-for").value) body.for = $("action-for").value;
  $("action-go").disabled = true;
  try {
    const response = await fetch(`breakers/${encodeURIComponent(chosen.name)}/${chosen.action}`, {
      method: "POST",
      headers: { ...headers({ "Content-Type": "application/json" }), Authorization: `Bearer ${given}` },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) {
      if (response.status === 401) { keep(""); $("action-token").parentElement.hidden = false; }
      refuse(answer.error, response.status === 401 ? $("action-token") : undefined);
      return;
    }
    keep(given);
    localStorage.setItem("circuits-actor", actor);
    $("action").close();
    emit("refresh", 0);
  } catch {
    refuse("The monitor does not answer. The action may have been carried out: check the circuit before you try again.");
  } finally {
    $("action-go").disabled = false;
  }
}

$("action-form").addEventListener("submit", submit);
$("action-cancel").addEventListener("click", () => $("action").close());
