/** The traffic of a time: live by server push, or as it was at an earlier time. */

import { get } from "./api";
import { listen, type Connection } from "./live.svelte";
import type { Traffic } from "./traffic";

/** Times that can be looked at, in the API's form. */
export const WINDOWS = ["10s", "30s", "60s", "5m", "15m", "30m"];
export const DEFAULT_WINDOW = "60s";

export class LiveTraffic {
  value: Traffic | null = $state.raw(null);
  connection: Connection = $state("connecting");
  error = $state("");

  /** `at`: empty for now. Both are asked anew when they change. */
  constructor(window: () => string, at: () => string) {
    $effect(() => {
      const [length, end] = [window(), at()];
      if (end === "") return this.#follow(length);
      let dropped = false;
      get<Traffic>("traffic", { window: length, at: end }).then(
        (value) => {
          if (dropped) return;
          this.value = value;
          this.connection = "live";
          this.error = "";
        },
        (error: unknown) => {
          if (!dropped) this.error = error instanceof Error ? error.message : String(error);
        },
      );
      return () => {
        dropped = true;
      };
    });
  }

  #follow(length: string): () => void {
    const heard = (text: string) => {
      this.value = JSON.parse(text) as Traffic;
      this.error = "";
    };
    return listen(`/api/v1/traffic/stream?window=${length}`, { traffic: heard }, (connection) => {
      this.connection = connection;
    });
  }
}

/** How many points a chart has, and how far apart they are. */
const POINTS = 30;
const STEP = 10;

/** The last five minutes in steps, and on from there. */
export class History {
  points: Traffic[] = $state.raw([]);

  constructor(wanted: () => boolean) {
    $effect(() => {
      if (!wanted()) return;
      let dropped = false;
      const at = (ago: number) => new Date(Date.now() - ago * 1000).toISOString();
      const ask = (end: string) => get<Traffic>("traffic", { window: `${STEP}s`, at: end });
      const times = Array.from({ length: POINTS }, (_, index) => at((POINTS - 1 - index) * STEP));
      // One after the other: a chart that fills is better than a burst of questions.
      const fill = async () => {
        for (const time of times.reverse()) {
          if (dropped) return;
          const point = await ask(time);
          this.points = [point, ...this.points].sort((a, b) => a.at.localeCompare(b.at)).slice(-POINTS);
        }
      };
      const next = async () => {
        const point = await get<Traffic>("traffic", { window: `${STEP}s` });
        if (!dropped) this.points = [...this.points, point].slice(-POINTS);
      };
      // A control plane that is away has no points; the page says so elsewhere.
      fill().catch(() => undefined);
      const timer = setInterval(() => void next().catch(() => undefined), STEP * 1000);
      return () => {
        dropped = true;
        clearInterval(timer);
        this.points = [];
      };
    });
  }
}
