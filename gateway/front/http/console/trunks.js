// Trunks: how each is, and out of service or back for whoever may.

import { ask } from "./asking.js";
import { byId, say } from "./elements.js";
import { fill } from "./rows.js";
import { moment } from "./times.js";

export async function showTrunks(rights) {
  const { trunks } = await ask("/api/trunks").catch(() => ({}));
  if (!trunks) return fill(byId("trunks"), [], "They cannot be asked now.");
  const may = rights.includes("trunks.write");
  return fill(byId("trunks"), trunks.map((trunk) => ({ key: trunk.name, cells: cells(trunk, may) })), "No trunks.");
}

function cells({ name, up, why, registered, calls, calls_at_most, out }, may) {
  const state = out ? { text: "out of service", chip: "failed" } : up ? { text: "up", chip: "live" } : { text: "down", chip: "failed" };
  const logged = registered === null ? "wants none" : registered ? "registered" : { text: "not registered", className: "poor" };
  const taken = out ? `taken out by ${out.by}, ${moment(out.since)}${out.why ? `: ${out.why}` : ""}` : "";
  const reason = [taken, why].filter(Boolean).join("; ");
  const text = out ? "Put back" : "Take out";
  const button = { text, label: `${text}: ${name}`, act: () => put(name, Boolean(out)) };
  return [name, state, logged, calls_at_most ? `${calls} of ${calls_at_most}` : calls, { text: reason, className: "how" }, may ? { button } : ""];
}

async function put(name, in_service) {
  if (!in_service && !confirm(`Take ${name} out of service? No new call comes or goes by it; calls that run go on.`)) return;
  try {
    await ask(`/api/trunks/${encodeURIComponent(name)}/service`, {
      method: "PUT", body: JSON.stringify({ in_service, why: in_service ? "" : "by the page of the house" }),
    });
    say(byId("trunks-told"), in_service ? `${name} is in service again.` : `${name} is out of service.`);
  } catch (error) {
    say(byId("trunks-told"), `${name} is as it was: ${error.status ? error.message : "the gateway does not answer"}.`);
  }
  dispatchEvent(new Event("house:changed"));
}
