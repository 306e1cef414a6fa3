/** The client for services, pages and apps: decisions within a deadline, rewards in the background, and a default order when all
 * fails. It needs nothing but `fetch`: Node 18 and later, Deno, Bun, browsers. */

import { delay, Sender, type Delivered } from "./sender.js";
import {
  newId,
  pause,
  post,
  TopbillError,
  type Answer,
  type AnswerItem,
  type Connection,
  type DecideBody,
  type EventBody,
  type Features,
  type Fetch,
  type OfferedAction,
  type RewardBody,
} from "./wire.js";

export { TopbillError } from "./wire.js";
export type { AnswerItem, Features, OfferedAction } from "./wire.js";
export type { Delivered } from "./sender.js";

export interface Settings {
  /** Sent as `Authorization: Bearer KEY`, where the service asks for keys. A key does not belong into a web page. */
  key?: string;
  /** Milliseconds for a whole decide or page, retries included; 250 unless said. */
  deadline?: number;
  /** Further attempts within the deadline; 2 unless said. They carry the same id: nothing is decided twice. */
  retries?: number;
  /** Throw a TopbillError where a default would be given. */
  strict?: boolean;
  /** In place of the global one. */
  fetch?: Fetch;
}

/** A decision. With `fallback` the service did not make it: the slate is the caller's default order, nothing was logged, and
 * `problem` says why. */
export interface Choice {
  decisionId: string;
  /** What to show first; null where there is nothing. */
  action: string | null;
  slate: AnswerItem[];
  variant: string | null;
  propensity: number;
  policy: string;
  policyVersion: number;
  /** The service's own reason; "" of a default. */
  reason: string;
  fallback: boolean;
  problem: string | null;
}

export interface DecideOptions {
  unit?: string;
  context?: Features;
  actions?: OfferedAction[];
  exclude?: string[];
  slots?: number;
  decisionId?: string;
  /** False for crawlers and previews: what the policy holds to be the best, of which nothing is learned. */
  explore?: boolean;
  /** A developer's header to see a variant. */
  override?: string;
  /** The order to fall back on; that of `actions` unless said. */
  default?: string[];
  deadline?: number;
}

export interface PageOptions {
  profile?: string;
  account?: string;
  session?: string;
  kids?: boolean;
  maturity?: number;
  region?: string;
  watched?: string[];
  context?: Features;
  pageId?: string;
  after?: string;
  candidates?: Record<string, Features[]>;
  scores?: Record<string, number>;
  explore?: boolean;
  override?: string;
  /** The rows of titles to fall back on. */
  default?: Record<string, string[]>;
  deadline?: number;
}

export interface Tile {
  title: string;
  payload: unknown;
  propensity: number;
  picture: string | null;
  picture_payload: unknown;
  picture_propensity: number;
}

export interface Row {
  row: string;
  payload: unknown;
  propensity: number;
  titles: Tile[];
}

/** A page, first row first. With `fallback` the rows are the caller's default, and `problem` says why. */
export interface Page {
  pageId: string;
  rows: Row[];
  /** Which rows have nothing to show, and why, among others. */
  notes: string[];
  fallback: boolean;
  problem: string | null;
}

export interface RewardOptions {
  value?: number;
  action?: string;
  position?: number;
  at?: Date;
  eventId?: string;
}

export interface EventOptions {
  unitType?: string;
  value?: number;
  action?: string;
  at?: Date;
  eventId?: string;
}

/** So many decides that failed in a row, and the service is left alone for so many milliseconds. */
const TRIPS = 3;
const REST = 1_000;

export class Client {
  private readonly connection: Connection;
  private readonly settings: Required<Pick<Settings, "deadline" | "retries" | "strict">>;
  private readonly rewards: Sender<RewardBody>;
  private readonly events: Sender<EventBody>;
  private failed = 0;
  private closedUntil = 0;

  constructor(address = "http://127.0.0.1:8600", settings: Settings = {}) {
    this.connection = {
      address: address.replace(/\/+$/, ""),
      key: settings.key,
      fetch: settings.fetch ?? ((url, init) => fetch(url, init)),
    };
    const { deadline = 250, retries = 2, strict = false } = settings;
    this.settings = { deadline, retries, strict };
    this.rewards = new Sender(this.connection, "rewards", "/v1/reward/batch");
    this.events = new Sender(this.connection, "events", "/v1/event/batch");
  }

  /** What to show. Throws only where the client is strict. */
  async decide(experiment: string, options: DecideOptions = {}): Promise<Choice> {
    const { unit, context, actions, exclude, slots, explore } = options;
    const decisionId = options.decisionId ?? newId();
    const body: DecideBody = said({ experiment, decision_id: decisionId, unit, context, actions, exclude, slots, explore });
    const order = (options.default ?? actions?.map((action) => action.id) ?? []).slice(0, slots);
    const answer = await this.ask<Answer>("/v1/decide", body, options);
    if (answer instanceof TopbillError) return defaultChoice(decisionId, order, answer.message);
    return {
      decisionId: answer.decision_id,
      action: answer.slate[0]?.action ?? null,
      slate: answer.slate,
      variant: answer.variant,
      propensity: answer.propensity,
      policy: answer.policy,
      policyVersion: answer.policy_version,
      reason: answer.reason,
      fallback: false,
      problem: null,
    };
  }

  /** A whole page: rows, titles, artwork. Throws only where the client is strict. */
  async page(page: string, options: PageOptions = {}): Promise<Page> {
    const { pageId, override: _override, default: rows = {}, deadline: _deadline, ...rest } = options;
    const ownId = options.session !== undefined || options.after !== undefined ? undefined : newId();
    const body = said({ page, page_id: pageId ?? ownId, ...rest });
    const answer = await this.ask<{ page_id: string; rows: Row[]; notes?: string[] }>("/v1/page", body, options);
    if (answer instanceof TopbillError) return defaultPage(pageId ?? ownId ?? newId(), rows, answer.message);
    return { pageId: answer.page_id, rows: answer.rows, notes: answer.notes ?? [], fallback: false, problem: null };
  }

  /** Tell what came of a decision, or of a page, where `action` is the title: queued, sent in the background with others, kept until
   * the service has it. Returns the event's id at once; what is lost in the end is counted in `delivered`. */
  reward(of: Choice | Page | string, event: string, options: RewardOptions = {}): string {
    const decisionId = typeof of === "string" ? of : "pageId" in of ? of.pageId : of.decisionId;
    const { value, action, position, at, eventId } = options;
    const body = said({ decision_id: decisionId, event, value, action, position, event_id: eventId, at: at?.toISOString() });
    return this.rewards.put(body);
  }

  /** Tell what a unit did that came of no decision, as `reward` does. */
  event(unit: string, event: string, options: EventOptions = {}): string {
    const { unitType, value, action, at, eventId } = options;
    const body = said({ unit, event, unit_type: unitType, value, action, event_id: eventId, at: at?.toISOString() });
    return this.events.put(body);
  }

  /** What became of all rewards and events so far. */
  get delivered(): Delivered {
    const [rewards, events] = [this.rewards.delivered(), this.events.delivered()];
    return {
      stored: rewards.stored + events.stored,
      unknown: rewards.unknown + events.unknown,
      refused: rewards.refused + events.refused,
      dropped: rewards.dropped + events.dropped,
      waiting: rewards.waiting + events.waiting,
    };
  }

  /** Wait until every reward and event has been dealt with; false where some still wait after `timeout` milliseconds. */
  async flush(timeout = 5_000): Promise<boolean> {
    const done = await Promise.all([this.rewards.flush(timeout), this.events.flush(timeout)]);
    return done.every(Boolean);
  }

  /** Flush, then end. Nothing else keeps a process alive until its rewards are sent. */
  async close(timeout = 5_000): Promise<boolean> {
    const done = await this.flush(timeout);
    this.rewards.stop();
    this.events.stop();
    return done;
  }

  /** The answer, or why there is none. Throws that where the client is strict. */
  private async ask<Answered>(
    path: string,
    body: unknown,
    options: { deadline?: number; override?: string },
  ): Promise<Answered | TopbillError> {
    const deadline = options.deadline ?? this.settings.deadline;
    const end = Date.now() + deadline;
    const headers: Record<string, string> = options.override ? { "topbill-override": options.override } : {};
    let problem = new TopbillError(`${this.connection.address}: left alone after ${TRIPS} failures`, 0, "unavailable");
    for (let attempt = 0; attempt <= this.settings.retries && this.mayAsk(attempt); attempt++) {
      try {
        const left = end - Date.now();
        if (left <= 0) break;
        const answer = await post<Answered>(this.connection, path, body, left, headers);
        this.failed = 0;
        return answer;
      } catch (error) {
        problem = error as TopbillError;
        if (!problem.isTransient) {
          this.failed = 0;
          break;
        }
        const wait = pause(attempt + 1, 20, 1_000);
        if (attempt === this.settings.retries || Date.now() + wait >= end) {
          this.note();
          break;
        }
        await delay(wait);
      }
    }
    if (this.settings.strict) throw problem;
    return problem;
  }

  private mayAsk(attempt: number): boolean {
    if (attempt > 0 || this.failed < TRIPS) return true;
    if (Date.now() < this.closedUntil) return false;
    // One is let through, and the others wait for its news.
    this.closedUntil = Date.now() + REST;
    return true;
  }

  private note(): void {
    this.failed += 1;
    if (this.failed === TRIPS) this.closedUntil = Date.now() + REST * (0.5 + Math.random() / 2);
  }
}

type Said<T> = { [K in keyof T]: Exclude<T[K], undefined> };

/** Without what was not said. */
function said<T extends object>(body: T): Said<T> {
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined)) as Said<T>;
}

function defaultChoice(decisionId: string, order: string[], problem: string): Choice {
  const slate = order.map((action, position) => ({ position, action, payload: null, propensity: 1 }));
  return {
    decisionId,
    action: order[0] ?? null,
    slate,
    variant: null,
    propensity: 1,
    policy: "",
    policyVersion: 0,
    reason: "",
    fallback: true,
    problem,
  };
}

function defaultPage(pageId: string, rows: Record<string, string[]>, problem: string): Page {
  const shown = Object.entries(rows).map(([row, titles]) => ({
    row,
    payload: null,
    propensity: 1,
    titles: titles.map((title) => ({
      title,
      payload: null,
      propensity: 1,
      picture: null,
      picture_payload: null,
      picture_propensity: 1,
    })),
  }));
  return { pageId, rows: shown, notes: [], fallback: true, problem };
}
