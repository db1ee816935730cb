/** The control plane's API, with the types that its own description gives. */

import type { components } from "./schema";

type Schemas = components["schemas"];
export type About = Schemas["About"];
export type Inventory = Schemas["Inventory"];
export type Workload = Schemas["WorkloadEntry"];
export type Service = Schemas["ServiceEntry"];
export type Trait = Schemas["Trait"];
export type ObjectRef = Schemas["ObjectRef"];
export type Listing = Schemas["Listing"];
export type ObjectEntry = Schemas["ObjectEntry"];
export type Written = Schemas["Written"];
export type Finding = Schemas["Finding"];
export type Findings = Schemas["Findings"];
export type Proxies = Schemas["Proxies"];
export type ProxyStatus = Schemas["ProxyStatus"];
export type Preview = Schemas["Preview"];
export type Access = Schemas["Access"];
export type Call = Schemas["Call"];
export type ProxyResources = Schemas["ProxyResources"];
export type Beat = Schemas["Beat"];
export type Asked = Schemas["Asked"];

/** `lateen_explain::Journey`, as far as it is shown. */
export interface Place { kind: string; namespace: string; name: string; file: string; line: number }
export interface Step { stage: string; said: string; notes?: string[]; places?: Place[] }
export interface Answer { status: number; why: string; flag: string; policy: string | null; places: Place[] }
export interface Branch {
  share: number;
  cluster: string;
  host: string;
  subset: string;
  port: number;
  steps: Step[];
  next: { share: number; workloads: string[]; leg: Leg }[];
  failure: Answer | null;
}
export interface Leg {
  at: { name: string; namespace: string; identity: string; address: string };
  role: string;
  steps: Step[];
  outcome:
    | ({ is: "answered" } & Answer)
    | { is: "closed"; why: string; places: Place[] }
    | { is: "sent"; branches: Branch[] }
    | { is: "delivered"; to: string }
    | { is: "left"; to: string };
}
export interface Journey {
  request: string;
  address: string;
  from: { name: string; namespace: string; identity: string; address: string };
  first: Leg;
  results: { share: number; servedBy: string | null; status: number | null; why: string; policy: string | null }[];
}

/** The certificate authority (`GET /api/v1/authority`). */
export interface Authority { pluggedIn: boolean; expires: string; roots: string[]; rotation?: { stage: string; due: string } }

/** What an apply or a delete came to. */
export interface Changed { revision: number; results: { kind: string; namespace?: string; name: string; action: string }[] }

/** The control plane says no, and why. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly diagnostics: Finding[] = [],
  ) {
    super(message);
  }
}

/** The owner's key, by which objects may be changed: `lateen dashboard` hands it over behind the `#` of the address. */
const KEY = "lateen-key";

function ownersKey(): string {
  const given = /^#key=([\w-]+)$/.exec(location.hash)?.[1];
  if (given) {
    localStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return localStorage.getItem(KEY) ?? "";
}

const key = ownersKey();

async function ask<T>(path: string, init: RequestInit = {}): Promise<T> {
  // What is more than a look says that it comes from here (see `console::guard` in lateend); who has no key says just that.
  const headers = { ...init.headers, "x-lateen-console": key || "none" };
  const response = await fetch(path, { cache: "no-store", ...init, headers });
  const text = await response.text();
  if (!response.ok) {
    let message = text.trim() || `${response.status} ${response.statusText}`;
    let diagnostics: Finding[] = [];
    try {
      const body = JSON.parse(text);
      message = body.message ?? message;
      diagnostics = body.diagnostics ?? [];
    } catch {
      // It is plain text.
    }
    throw new Refused(response.status, message, diagnostics);
  }
  return JSON.parse(text) as T;
}

export const get = <T>(path: string, query: Record<string, string> = {}) => {
  const text = new URLSearchParams(query).toString();
  return ask<T>(`/api/v1/${path}${text && `?${text}`}`);
};

function send<T>(path: string, body: string, kind: string): Promise<T> {
  return ask<T>(`/api/v1/${path}`, { method: "POST", headers: { "content-type": kind }, body });
}

export const post = <T>(path: string, body: unknown) => send<T>(path, JSON.stringify(body), "application/json");

export const apply = (text: string, namespace: string) =>
  send<Changed>(`apply?${new URLSearchParams({ namespace, file: "console" })}`, text, "application/yaml");

export const remove = (objects: { kind: string; namespace: string; name: string }[]) =>
  post<Changed>("delete", { objects });
