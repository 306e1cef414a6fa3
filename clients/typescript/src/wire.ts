/** What the service is sent and answers, as far as this client speaks of it. The build checks it against the
 * types that are generated from the service's own OpenAPI document. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Features = Record<string, unknown>;

export interface OfferedAction {
  id: string;
  features?: Features;
  payload?: unknown;
}

export interface DecideBody {
  experiment: string;
  decision_id?: string;
  unit?: string;
  context?: Features;
  actions?: OfferedAction[];
  exclude?: string[];
  slots?: number;
  explore?: boolean;
}

export interface AnswerItem {
  position: number;
  action: string;
  payload: unknown;
  propensity: number;
}

export interface Answer {
  decision_id: string;
  variant: string | null;
  slate: AnswerItem[];
  propensity: number;
  policy: string;
  policy_version: number;
  reason: string;
}

export interface RewardBody {
  decision_id: string;
  event: string;
  value?: number;
  action?: string | null;
  position?: number | null;
  event_id?: string | null;
  at?: string | null;
}

export interface EventBody {
  unit: string;
  event: string;
  unit_type?: string | null;
  value?: number;
  action?: string | null;
  event_id?: string | null;
  at?: string | null;
}

export interface Results {
  results: { status: string; warning?: string | null }[];
}

export interface Problem {
  error: { code: string; message: string; path?: string | null; request_id?: string | null };
}

/** Why the service did not answer as it was asked to. */
export class TopbillError extends Error {
  constructor(
    message: string,
    /** The HTTP status; 0 where there was no answer at all. */
    readonly status: number,
    /** The service's code for it, as `invalid`, `not_found` or `conflict`; `unavailable` where it was not reached. */
    readonly code: string,
  ) {
    super(message);
    this.name = "TopbillError";
  }

  /** Whether the same request may succeed a moment later. */
  get isTransient(): boolean {
    return this.status === 0 || [408, 429, 500, 502, 503, 504].includes(this.status);
  }
}

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export interface Connection {
  address: string;
  key: string | undefined;
  fetch: Fetch;
}

/** POST a body, and read the answer. Throws a TopbillError, also after `deadline` milliseconds. */
export async function post<Answered>(
  connection: Connection,
  path: string,
  body: unknown,
  deadline: number,
  headers: Record<string, string> = {},
): Promise<Answered> {
  const aborter = new AbortController();
  const timer = setTimeout(() => aborter.abort(), Math.max(1, deadline));
  try {
    const response = await connection.fetch(connection.address + path, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        ...(connection.key === undefined ? {} : { authorization: `Bearer ${connection.key}` }),
        ...headers,
      },
      body: JSON.stringify(body),
      signal: aborter.signal,
    });
    if (response.ok) return (await response.json()) as Answered;
    throw await refusal(response);
  } catch (error) {
    if (error instanceof TopbillError) throw error;
    const why = aborter.signal.aborted ? `no answer within ${Math.round(deadline)} ms` : String(error);
    throw new TopbillError(`${connection.address}: ${why}`, 0, "unavailable");
  } finally {
    clearTimeout(timer);
  }
}

async function refusal(response: Response): Promise<TopbillError> {
  try {
    const { error } = (await response.json()) as Problem;
    const where = error.path ? `${error.path}: ` : "";
    return new TopbillError(where + error.message, response.status, error.code);
  } catch {
    return new TopbillError(`HTTP ${response.status}`, response.status, "unavailable");
  }
}

/** A fresh id of 32 hexadecimal digits: milliseconds first, so that the log's indexes grow at their end, then chance. */
export function newId(): string {
  const chance = crypto.getRandomValues(new Uint8Array(10));
  const digits = Array.from(chance, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return Date.now().toString(16).padStart(12, "0") + digits;
}

/** Milliseconds to wait after so many failures in a row: by chance, up to a limit that doubles. */
export function pause(failures: number, first: number, longest: number): number {
  return Math.random() * Math.min(longest, first * 2 ** (failures - 1));
}
