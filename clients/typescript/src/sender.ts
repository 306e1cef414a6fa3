import { newId, pause, post, TopbillError, type Connection, type Results } from "./wire.js";

const LARGEST_BATCH = 500;
const LONGEST_QUEUE = 50_000;
const GATHER = 50;
const LONGEST_TRY = 5_000;

/** What became of rewards and events: `stored` (duplicates included), `unknown` where the service has no such decision or has
 * erased the unit since, `refused` for their form, `dropped` because too many waited, and `waiting` still. */
export interface Delivered {
  stored: number;
  unknown: number;
  refused: number;
  dropped: number;
  waiting: number;
}

/** A queue that is sent in batches, again and again until the service has it. An event's id is chosen when it is queued, so that
 * sending it twice stores it once. */
export class Sender<Body extends { event_id?: string | null }> {
  private readonly queue: Body[] = [];
  private readonly counts = { stored: 0, unknown: 0, refused: 0, dropped: 0 };
  private timer: ReturnType<typeof setTimeout> | undefined;
  private sending: Promise<void> | undefined;
  private failures = 0;

  constructor(
    private readonly connection: Connection,
    private readonly kind: "rewards" | "events",
    private readonly path: string,
  ) {}

  /** Queue an event; returns its id. */
  put(body: Body): string {
    const id = body.event_id ?? newId();
    if (this.queue.length >= LONGEST_QUEUE) this.counts.dropped += 1;
    else this.queue.push({ ...body, event_id: id });
    this.wake(this.queue.length >= LARGEST_BATCH && this.failures === 0 ? 0 : GATHER);
    return id;
  }

  delivered(): Delivered {
    return { ...this.counts, waiting: this.queue.length };
  }

  /** Wait until nothing waits; false after `timeout` milliseconds. */
  async flush(timeout: number): Promise<boolean> {
    const end = Date.now() + timeout;
    while (this.queue.length > 0 && Date.now() < end) {
      this.stop();
      const left = Math.max(1, end - Date.now());
      await Promise.race([this.send(), delay(left)]);
      if (this.failures > 0) await delay(Math.min(left, pause(this.failures, 50, 1_000)));
    }
    return this.queue.length === 0;
  }

  /** Send no more by itself. */
  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private wake(after: number): void {
    if (this.timer !== undefined || this.sending !== undefined || this.queue.length === 0) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      void this.send();
    }, after);
    // In Node a reward that waits does not keep a process alive: `close` does.
    (this.timer as { unref?: () => void }).unref?.();
  }

  private send(): Promise<void> {
    this.sending ??= this.sendOne().finally(() => {
      this.sending = undefined;
      this.wake(this.failures > 0 ? pause(this.failures, 50, 10_000) : GATHER);
    });
    return this.sending;
  }

  private async sendOne(): Promise<void> {
    const batch = this.queue.slice(0, LARGEST_BATCH);
    try {
      await this.deliver(batch);
      this.failures = 0;
    } catch {
      this.failures += 1;
    }
  }

  /** Deliver the oldest events of the queue, and take them out of it. Throws where the same may succeed later. */
  private async deliver(batch: Body[]): Promise<void> {
    try {
      const { results } = await post<Results>(this.connection, this.path, { [this.kind]: batch }, LONGEST_TRY);
      for (const { status } of results) {
        if (status === "stored" || status === "duplicate") this.counts.stored += 1;
        else this.counts.unknown += 1;
      }
      this.queue.splice(0, batch.length);
    } catch (error) {
      const isLasting = error instanceof TopbillError && [400, 409, 413, 422].includes(error.status);
      if (!isLasting) throw error;
      if (batch.length === 1) {
        this.counts.refused += 1;
        this.queue.shift();
        return;
      }
      // One of the wrong form refuses all: halves find it.
      const half = Math.ceil(batch.length / 2);
      await this.deliver(batch.slice(0, half));
      await this.deliver(batch.slice(half));
    }
  }
}

export function delay(milliseconds: number): Promise<void> {
  return new Promise((done) => setTimeout(done, milliseconds));
}
