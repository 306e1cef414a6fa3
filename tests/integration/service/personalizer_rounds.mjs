// Rank, reward and activate through Microsoft's own client for Node, over rounds that a test has written down.
// node personalizer_rounds.mjs NODE_MODULES ENDPOINT ROUNDS.json  → the chosen actions, and what else was answered
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [folder, endpoint, file] = process.argv.slice(2);
const require = createRequire(folder + "/");
const createClient = require("@azure-rest/ai-personalizer").default;
const key = { key: "any key will do on loopback" };
const client = createClient(endpoint, key, { allowInsecureConnection: true });
const { actions, rounds } = JSON.parse(readFileSync(file, "utf8"));
// Until no new policy has come for 3 s.
async function waitUntilLearned() {
  let version = 0;
  for (let quiet = 0; version === 0 || quiet < 30; quiet++) {
    const { experiments } = await (await fetch(endpoint + "/v1/experiments")).json();
    if (experiments[0].policy_version !== version) [version, quiet] = [experiments[0].policy_version, 0];
    await new Promise((done) => setTimeout(done, 100));
  }
}

const chosen = [];
for (const [i, round] of rounds.entries()) {
  if (i === 1500) await waitUntilLearned();
  const eventId = `node/${rounds.length}/${i}`;
  const body = { contextFeatures: round.context, actions, eventId };
  const ranked = await client.path("/rank").post({ body });
  if (ranked.status !== "201") throw new Error(JSON.stringify(ranked.body));
  chosen.push(ranked.body.rewardActionId);
  const value = round.luck < round.truth[ranked.body.rewardActionId] ? 1 : 0;
  const told = await client.path("/events/{eventId}/reward", eventId).post({ body: { value } });
  if (told.status !== "204") throw new Error(JSON.stringify(told.body));
}
const slots = actions.slice(0, 2).map((action, i) => ({ id: `slot ${i}`, baselineAction: action.id }));
const multi = await client.path("/multislot/rank").post({ body: { actions, slots, eventId: `m${rounds.length}`, deferActivation: true } });
const activated = await client.path("/multislot/events/{eventId}/activate", multi.body.eventId).post();
const reward = [{ slotId: "slot 1", value: 1 }];
const told = await client.path("/multislot/events/{eventId}/reward", multi.body.eventId).post({ body: { reward } });
const refused = await client.path("/rank").post({ body: { actions: [] } });
const statuses = [multi.status, activated.status, told.status, refused.status];
console.log(JSON.stringify({ chosen, statuses, multi: multi.body, refused: refused.body }));
