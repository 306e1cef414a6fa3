// The client against a live service: node --test client.test.mjs, with TOPBILL naming the service's address and CLIENT the built client.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import test from "node:test";

const { Client, TopbillError } = await import(process.env.CLIENT);
const address = process.env.TOPBILL;

/** A service of the test's own: `answer` gets each body and gives status and body, or nothing at all. */
async function served(answer) {
  const asked = [];
  const server = createServer((request, response) => {
    let text = "";
    request.on("data", (part) => (text += part));
    request.on("end", () => {
      asked.push(JSON.parse(text));
      const given = answer(asked.length, asked.at(-1), request);
      if (given) response.writeHead(given[0], { "content-type": "application/json" }).end(JSON.stringify(given[1]));
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { at: `http://127.0.0.1:${server.address().port}`, asked, close: () => (server.closeAllConnections(), server.close()) };
}

test("a decision is the service's, and its rewards arrive", async () => {
  const topbill = new Client(address, { deadline: 10_000 });
  const choice = await topbill.decide("home-artwork", { unit: "profile-7", context: { device: "tv" }, default: ["close-up"] });
  assert.equal(choice.fallback, false, choice.problem);
  assert.equal(choice.action, choice.slate[0].action);
  assert.ok(choice.propensity > 0);

  topbill.reward(choice, "play", { eventId: "once" });
  topbill.reward(choice, "play", { eventId: "once" });
  topbill.event("profile-7", "session_start", { unitType: "profile_id", at: new Date() });
  assert.equal(await topbill.close(30_000), true);
  assert.deepEqual(topbill.delivered, { stored: 3, unknown: 0, refused: 0, dropped: 0, waiting: 0 });

  const { rewards } = await (await fetch(`${address}/v1/decisions/${choice.decisionId}`)).json();
  assert.deepEqual(rewards.map((reward) => reward.event_id), ["once"]);
});

test("the same id is the same decision", async () => {
  const topbill = new Client(address, { deadline: 10_000, strict: true });
  const asked = { unit: "profile-8", context: { device: "tv" }, decisionId: `twice-${Date.now()}` };
  const [first, second] = [await topbill.decide("home-artwork", asked), await topbill.decide("home-artwork", asked)];
  assert.deepEqual(first, second);
  await assert.rejects(topbill.decide("home-artwork", { ...asked, unit: "profile-9" }), { code: "conflict", status: 409 });
});

test("a page is the service's, and a reward of it names the title", async () => {
  const topbill = new Client(address, { deadline: 10_000 });
  const page = await topbill.page("home", { profile: "7", context: { device: "tv" }, default: { popular: ["heat-1995"] } });
  assert.equal(page.fallback, false, page.problem);
  const title = page.rows.find((row) => row.titles.length).titles[0].title;
  topbill.reward(page, "play", { action: title });
  assert.equal(await topbill.close(30_000), true);
  assert.equal(topbill.delivered.stored, 1);
});

test("what the service refuses is the default, or an error where the client is strict", async () => {
  const lenient = await new Client(address, { deadline: 10_000 }).decide("nothing", { default: ["a", "b"], slots: 1 });
  assert.deepEqual([lenient.fallback, lenient.action, lenient.slate.length], [true, "a", 1]);
  assert.match(lenient.problem, /nothing/);
  const strict = new Client(address, { deadline: 10_000, strict: true });
  await assert.rejects(strict.decide("nothing"), (error) => error instanceof TopbillError && error.code === "not_found");
});

test("a service that is slow, down or silent costs the deadline and no more, and is left alone after three", async () => {
  const silent = await served(() => undefined);
  const topbill = new Client(silent.at, { deadline: 60, retries: 0 });
  for (let i = 0; i < 3; i++) {
    const began = performance.now();
    const choice = await topbill.decide("art", { actions: [{ id: "x" }, { id: "y" }] });
    assert.deepEqual([choice.fallback, choice.slate.map((item) => item.action)], [true, ["x", "y"]]);
    assert.ok(performance.now() - began < 5_000);
  }
  const asked = silent.asked.length;
  assert.match((await topbill.decide("art")).problem, /left alone/);
  assert.equal(silent.asked.length, asked);
  silent.close();
});

test("a retry carries the same id", async () => {
  const answer = { decision_id: "d", variant: null, slate: [], propensity: 1, policy: "fixed", policy_version: 0, reason: "policy" };
  const service = await served((nth) => (nth === 1 ? [503, { error: { code: "log_unavailable", message: "a moment" } }] : [200, answer]));
  const choice = await new Client(service.at, { deadline: 10_000 }).decide("art");
  assert.equal(choice.fallback, false);
  assert.equal(service.asked.length, 2);
  assert.equal(service.asked[0].decision_id, service.asked[1].decision_id);
  service.close();
});

test("rewards wait for a service that is away, and one of the wrong form stops no other", async () => {
  const service = await served((nth, { rewards }) => {
    if (nth <= 2) return [503, { error: { code: "log_unavailable", message: "a moment" } }];
    const isWrong = rewards.some((reward) => reward.event === "wrong");
    if (isWrong) return [422, { error: { code: "invalid", message: "no", path: "$.rewards[0]" } }];
    return [200, { results: rewards.map((reward) => ({ status: reward.decision_id === "gone" ? "unknown_decision" : "stored" })) }];
  });
  const topbill = new Client(service.at);
  for (const event of ["a", "b", "wrong", "c"]) topbill.reward("d", event);
  topbill.reward("gone", "a");
  assert.equal(await topbill.close(30_000), true);
  assert.deepEqual(topbill.delivered, { stored: 3, unknown: 1, refused: 1, dropped: 0, waiting: 0 });
  const ids = service.asked.map(({ rewards }) => rewards[0].event_id);
  assert.equal(ids[0], ids[1]);
  service.close();
});

test("a key goes with every request", async () => {
  const keys = [];
  const service = await served((nth, body, request) => {
    keys.push(request.headers.authorization);
    return [200, { results: [{ status: "stored" }] }];
  });
  const topbill = new Client(service.at, { key: "a-key-of-some-length" });
  topbill.reward("d", "play");
  await topbill.close(10_000);
  assert.deepEqual(keys, ["Bearer a-key-of-some-length"]);
  service.close();
});

test("OpenFeature's track is a reward of what was evaluated", async () => {
  const { tracking } = await import(process.env.CLIENT.replace("index.js", "openfeature.js"));
  const rewards = [];
  const provider = tracking({ hooks: [] }, { reward: (...said) => rewards.push(said) }, true);
  const context = { targetingKey: "mia" };
  for (const [flagKey, decisionId] of [["art", "d1"], ["row", "d2"], ["art", "d1"]]) {
    provider.hooks[0].after({ flagKey, context }, { flagMetadata: { decisionId } });
  }
  provider.track("play", context, { flag: "art", value: 0.5 });
  provider.track("home", context);
  provider.track("home", { targetingKey: "noa" });
  assert.deepEqual(rewards, [
    ["d1", "seen"],
    ["d2", "seen"],
    ["d1", "play", { value: 0.5 }],
    ["d1", "home", {}],
    ["d2", "home", {}],
  ]);
});

test("OpenFeature's own provider for servers tracks", async () => {
  const require = createRequire(process.env.TOPBILL_NODE_MODULES + "/");
  const { OpenFeature } = require("@openfeature/server-sdk");
  const { OFREPProvider } = require("@openfeature/ofrep-provider");
  const { tracking } = await import(process.env.CLIENT.replace("index.js", "openfeature.js"));
  const topbill = new Client(address);
  await OpenFeature.setProviderAndWait(tracking(new OFREPProvider({ baseUrl: address }), topbill));
  const flags = OpenFeature.getClient();
  const viewer = { targetingKey: "profile-7", device: "tv" };
  const artwork = await flags.getObjectDetails("home-artwork", {}, viewer);
  assert.equal(artwork.errorCode, undefined, artwork.errorMessage);
  flags.track("play", viewer, { value: 0.5 });
  assert.equal(await topbill.close(30_000), true);
  const { rewards } = await (await fetch(`${address}/v1/decisions/${artwork.flagMetadata.decisionId}`)).json();
  assert.deepEqual(rewards.map((reward) => [reward.event, reward.value]), [["play", 0.5]]);
});
