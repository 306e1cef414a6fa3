// The client's own types beside those that openapi-typescript makes of the service's document: what it sends must be taken, and what
// is answered must be what it reads. Compiled by .ci/clients, never run.
import type { components } from "./schema";
import type { Answer, DecideBody, EventBody, Problem, Results, RewardBody } from "../src/wire";

type Schemas = components["schemas"];
type Fits<Given extends Expected, Expected> = Given;

export type Sent = [
  Fits<Required<DecideBody>, Schemas["DecideRequest"]>,
  Fits<RewardBody, Schemas["RewardRequest"]>,
  Fits<EventBody, Schemas["EventRequest"]>,
];
export type Read = [
  Fits<Schemas["Answer"], Answer>,
  Fits<Schemas["RewardBatchAnswer"], Results>,
  Fits<Schemas["EventBatchAnswer"], Results>,
  Fits<Schemas["ProblemAnswer"], Problem>,
];
