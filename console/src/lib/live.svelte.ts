/**
 * What the control plane tells by itself. One stream of how things stand; whatever a view has loaded is loaded anew when the
 * revision moves on, and when the control plane comes back after it was away.
 */

import { get, type About, type Beat } from "./api";

/** How long to wait for a control plane that is away, in milliseconds. */
const AGAIN = 1000;
/** Views are loaded anew so often at most, in milliseconds, however quickly the configuration changes. */
const CALM = 1000;

export type Connection = "connecting" | "live" | "lost";

/** Events of a path by their names, for as long as somebody listens; taken up again whenever they break off. */
export function listen(
  path: string,
  heard: Record<string, (text: string) => void>,
  stands: (connection: Connection) => void,
): () => void {
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const open = () => {
    source = new EventSource(path);
    source.onopen = () => stands("live");
    for (const [name, handle] of Object.entries(heard)) {
      source.addEventListener(name, (event) => handle((event as MessageEvent<string>).data));
    }
    source.onerror = () => {
      stands("lost");
      // Browsers give up on some failures and not on others.
      source?.close();
      timer = setTimeout(open, AGAIN);
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    source?.close();
  };
}

class Live {
  connection: Connection = $state("connecting");
  beat: Beat | null = $state.raw(null);
  about: About | null = $state.raw(null);
  /** Counts up when what views have loaded may be out of date. */
  generation = $state(0);
  #revision = -1;
  #last = 0;
  #later: ReturnType<typeof setTimeout> | undefined;

  start() {
    listen(
      "/api/v1/events",
      { message: (text) => this.#heard(JSON.parse(text) as Beat) },
      (connection) => {
        if (connection === "live" && this.connection === "lost") this.#revision = -1;
        this.connection = connection;
      },
    );
  }

  #heard(beat: Beat) {
    const moved = beat.revision !== this.#revision;
    const proxies = JSON.stringify(this.beat?.proxies) !== JSON.stringify(beat.proxies);
    this.#revision = beat.revision;
    this.beat = beat;
    if (moved || proxies) this.#renew();
    if (moved) void this.#about();
  }

  #renew() {
    const wait = this.#last + CALM - Date.now();
    clearTimeout(this.#later);
    if (wait > 0) {
      this.#later = setTimeout(() => this.#renew(), wait);
      return;
    }
    this.#last = Date.now();
    this.generation += 1;
  }

  async #about() {
    try {
      this.about = await get<About>("about");
    } catch {
      // The next event asks again.
    }
  }
}

export const live = new Live();

/** Something that is loaded, and loaded anew whenever it may have changed. What there was stays until there is newer. */
export class Loaded<T> {
  value: T | null = $state.raw(null);
  error = $state("");
  loading = $state(true);
  #asked = 0;

  constructor(load: () => Promise<T> | null) {
    $effect(() => {
      void live.generation;
      const promise = load();
      if (promise === null) {
        this.value = null;
        this.loading = false;
        return;
      }
      const mine = ++this.#asked;
      this.loading = true;
      promise.then(
        (value) => {
          if (mine !== this.#asked) return;
          this.value = value;
          this.error = "";
          this.loading = false;
        },
        (error: unknown) => {
          if (mine !== this.#asked) return;
          this.error = error instanceof Error ? error.message : String(error);
          this.loading = false;
        },
      );
    });
  }
}
