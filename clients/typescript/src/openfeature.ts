/** OpenFeature's own OFREP providers, with what they leave open: an event that is tracked is a reward of what was shown.
 *
 *     import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
 *     const provider = tracking(new OFREPWebProvider({ baseUrl }), topbill);
 *     await OpenFeature.setProviderAndWait(provider);
 */

import type { Client } from "./index.js";

const VIEWERS = 10_000;

interface Context {
  targetingKey?: string;
}

interface Shown {
  flagKey: string;
  context: Context;
}

interface Details {
  flagMetadata: object;
}

interface Tracked {
  value?: number;
  flag?: unknown;
}

/** The provider itself, which from now on tells what it decided and rewards what is tracked: the last decision of each flag that was
 * evaluated for the context's targeting key, or of the one flag that the event's `flag` names. With `seen`, what a page evaluates all
 * at once counts as shown when one asks for its value. */
export function tracking<Provider extends object>(provider: Provider, client: Client, seen = false): Provider {
  const shown = new Map<string, Map<string, string>>();
  const hook = {
    after({ flagKey, context }: Shown, { flagMetadata }: Details): void {
      const id = (flagMetadata as { decisionId?: unknown }).decisionId;
      if (typeof id !== "string") return;
      const viewer = context.targetingKey ?? "";
      const flags = shown.get(viewer) ?? new Map<string, string>();
      if (seen && flags.get(flagKey) !== id) client.reward(id, "seen");
      flags.set(flagKey, id);
      // The viewer who was not here for longest goes first.
      shown.delete(viewer);
      shown.set(viewer, flags);
      for (const oldest of shown.keys()) {
        if (shown.size <= VIEWERS) break;
        shown.delete(oldest);
      }
    },
  };
  const own = provider as { hooks?: object[] };
  return Object.assign(provider, {
    hooks: [...(own.hooks ?? []), hook],
    track(name: string, context: Context, details: Tracked = {}): void {
      for (const [flag, id] of shown.get(context.targetingKey ?? "") ?? []) {
        if (details.flag !== undefined && details.flag !== flag) continue;
        client.reward(id, name, details.value === undefined ? {} : { value: details.value });
      }
    },
  });
}
