// What a typed client looks like: openapi-fetch over the types that openapi-typescript makes of the service's document.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Answer = components["schemas"]["Answer"];
type Rank = components["schemas"]["PersonalizerRankResponse"];

const topbill = createClient<paths>({ baseUrl: "http://127.0.0.1:8600" });

export async function decide(unit: string): Promise<Answer | undefined> {
  const { data, error } = await topbill.POST("/v1/decide", {
    body: { experiment: "home-artwork", unit, context: { device: "tv" }, slots: 2 },
  });
  if (error) console.error(error.error.code, error.error.message);
  return data;
}

export async function reward(answer: Answer): Promise<string | undefined> {
  const { data } = await topbill.POST("/v1/reward", {
    body: { decision_id: answer.decision_id, event: "play", action: answer.slate[0].action },
  });
  const status: "stored" | "duplicate" | "unknown_decision" | undefined = data?.status;
  return status;
}

export async function rank(): Promise<Rank | undefined> {
  const { data } = await topbill.POST("/personalizer/v1.0/rank", {
    body: { actions: [{ id: "news", features: [{ topic: "politics" }] }], contextFeatures: [{ device: { mobile: true } }] },
  });
  return data;
}

// @ts-expect-error  an experiment must be named
topbill.POST("/v1/decide", { body: { unit: "u" } });
