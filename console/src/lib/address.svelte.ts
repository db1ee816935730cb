/** The address bar, which is where the state of every view lives: it can be kept, sent to others, and gone back in. */

class Address {
  path = $state(location.pathname);
  #query = $state.raw(new URLSearchParams(location.search));

  constructor() {
    window.addEventListener("popstate", () => this.#read());
    window.addEventListener("click", (event) => this.#follow(event));
  }

  get(name: string, fallback = ""): string {
    return this.#query.get(name) ?? fallback;
  }

  has(name: string): boolean {
    return this.#query.has(name);
  }

  /** A parameter that is a list, in the order of the address. */
  list(name: string): string[] {
    return this.get(name).split(",").filter((it) => it !== "");
  }

  get search(): string {
    const text = this.#query.toString();
    return text && `?${text}`;
  }

  /** Parameters that change; an empty one is left out. Typing does not fill the history, choices do. */
  set(changes: Record<string, string>, keep: "replace" | "push" = "replace") {
    const query = new URLSearchParams(this.#query);
    for (const [name, value] of Object.entries(changes)) {
      if (value === "") query.delete(name);
      else query.set(name, value);
    }
    const text = query.toString();
    history[keep === "push" ? "pushState" : "replaceState"](null, "", this.path + (text && `?${text}`));
    this.#query = query;
  }

  go(href: string) {
    history.pushState(null, "", href);
    this.#read();
    scrollTo(0, 0);
  }

  #read() {
    this.path = location.pathname;
    this.#query = new URLSearchParams(location.search);
  }

  /** Our own links change the address without loading everything anew; what asks for another tab is the browser's. */
  #follow(event: MouseEvent) {
    const link = (event.target as Element | null)?.closest?.("a");
    const asked = event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
    if (!link || asked || event.defaultPrevented || link.target || link.origin !== location.origin) return;
    if (link.pathname.startsWith("/api/")) return;
    event.preventDefault();
    // A link within the page: the browser's own behaviour without its reload.
    if (link.hash && link.pathname === location.pathname) {
      document.querySelector(link.hash)?.scrollIntoView();
      return;
    }
    this.go(link.pathname + link.search);
  }
}

export const address = new Address();

/** A link to an object's page. */
export function objectHref(object: { kind: string; namespace: string; name: string }, line = 0): string {
  const query = new URLSearchParams({ kind: object.kind, namespace: object.namespace, name: object.name });
  if (line > 0) query.set("line", String(line));
  return `/config?${query}`;
}

export const workloadHref = (namespace: string, name: string) =>
  `/workloads?${new URLSearchParams({ namespace, name })}`;

export const serviceHref = (host: string) => `/services?${new URLSearchParams({ host })}`;
