// Flags evaluated by OpenFeature's own OFREP providers, of the server and of the web, in one process.
// node openfeature_flags.mjs NODE_MODULES ENDPOINT  → what they were answered, as JSON
import { createRequire } from "node:module";

const [folder, endpoint] = process.argv.slice(2);
const require = createRequire(folder + "/");
const server = require("@openfeature/server-sdk");
const { OFREPProvider } = require("@openfeature/ofrep-provider");
const web = require("@openfeature/web-sdk");
const { OFREPWebProvider } = require("@openfeature/ofrep-web-provider");

const viewer = { targetingKey: "mia", device: "tv" };

async function ofServer() {
  await server.OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: endpoint }));
  const client = server.OpenFeature.getClient();
  return {
    object: await client.getObjectDetails("picture", {}, viewer),
    text: await client.getStringDetails("text", "default", viewer),
    flag: await client.getBooleanDetails("switch", false, viewer),
    number: await client.getNumberDetails("number", 0, viewer),
    absent: await client.getStringDetails("absent", "default", viewer),
    wrong: await client.getStringDetails("text", "default", { ...viewer, device: 3 }),
    nobody: await client.getStringDetails("text", "default", { device: "tv" }),
  };
}

async function ofWeb() {
  const options = { baseUrl: endpoint, cacheMode: "disabled", changeDetection: "none" };
  await web.OpenFeature.setContext(viewer);
  await web.OpenFeature.setProviderAndWait(new OFREPWebProvider(options));
  const client = web.OpenFeature.getClient();
  const before = client.getObjectDetails("picture", {});
  await web.OpenFeature.setContext({ ...viewer, device: "web" });
  const after = client.getObjectDetails("picture", {});
  return { before, after, text: client.getStringDetails("text", "default"), absent: client.getStringDetails("absent", "default") };
}

console.log(JSON.stringify({ server: await ofServer(), web: await ofWeb() }));
process.exit(0);
