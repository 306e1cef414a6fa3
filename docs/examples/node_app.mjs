// A Node service that asks Topbill which picture to show; Node 18 and later need nothing installed.
//
//   TOPBILL=http://127.0.0.1:8600 PORT=3000 node node_app.mjs
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

const TOPBILL = process.env.TOPBILL ?? "http://127.0.0.1:8600";
const EDITORS_ORDER = ["close-up", "chase"];

async function post(path, body, deadline) {
  const answer = await fetch(TOPBILL + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(deadline),
  });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  return answer.json();
}

// The id is our own, so that asking again decides nothing anew.
async function artwork(profile, device) {
  const decision_id = randomUUID();
  try {
    const body = { experiment: "home-artwork", unit: profile, context: { device }, decision_id, slots: 1 };
    const { slate } = await post("/v1/decide", body, 250);
    return { picture: slate[0].action, decision: decision_id, fallback: false };
  } catch {
    return { picture: EDITORS_ORDER[0], decision: decision_id, fallback: true };
  }
}

async function played(decision_id) {
  return post("/v1/reward", { decision_id, event: "play", event_id: randomUUID() }, 2000);
}

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  const [, what, id] = url.pathname.split("/");
  const answer = what === "artwork" ? await artwork(id, url.searchParams.get("device") ?? "tv") : await played(id);
  response.setHeader("content-type", "application/json").end(JSON.stringify(answer));
});
server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => console.log("listening on", server.address().port));
