/**
 * What the wizard for a service's traffic writes: a VirtualService of weights, with what else is chosen, and a DestinationRule
 * where subsets are missing. Pure.
 */

import type { Inventory, Service } from "./api";

export interface Target { subset: string; version: string; weight: number }

/** What else is chosen; an empty text is left out. */
export interface Extras {
  /** Requests with this header go to one version, and the rest by weight. */
  header: string;
  value: string;
  to: string;
  /** Durations as Istio writes them: `2s`, `500ms`. */
  timeout: string;
  attempts: string;
  perTry: string;
  delay: string;
  delayPercent: string;
  abort: string;
  abortPercent: string;
  mirror: string;
  mirrorPercent: string;
}

export const NOTHING: Extras = {
  header: "", value: "", to: "", timeout: "", attempts: "", perTry: "", delay: "", delayPercent: "", abort: "", abortPercent: "", mirror: "", mirrorPercent: "",
};

/** One target for each version behind a service: its subset, or the one that the wizard will make. */
export function targets(service: Service, inventory: Inventory): Target[] {
  const behind = inventory.workloads.filter((it) => service.workloads.includes(`${it.namespace}/${it.name}`));
  const versions = [...new Set(behind.map((it) => it.version))].sort();
  const found = versions.map((version) => {
    const subset = service.subsets.find((it) => it.labels.version === version && Object.keys(it.labels).length === 1);
    return { subset: subset?.name ?? version, version, weight: 0 };
  });
  return even(found);
}

/** A hundred percent, shared out in whole ones. */
export function even(all: Target[]): Target[] {
  const share = Math.floor(100 / Math.max(all.length, 1));
  return all.map((target, index) => ({ ...target, weight: index === 0 ? 100 - share * (all.length - 1) : share }));
}

/** One weight is changed; the others make up for it in proportion, in whole percents. */
export function weigh(all: Target[], changed: number, weight: number): Target[] {
  const wanted = Math.max(0, Math.min(100, Math.round(weight)));
  const others = all.filter((_, index) => index !== changed);
  const sum = others.reduce((total, it) => total + it.weight, 0);
  let left = 100 - wanted;
  let rest = others.length;
  return all.map((target, index) => {
    if (index === changed) return { ...target, weight: all.length === 1 ? 100 : wanted };
    rest -= 1;
    const exact = sum > 0 ? ((100 - wanted) * target.weight) / sum : (100 - wanted) / others.length;
    const own = rest === 0 ? left : Math.min(left, Math.round(exact));
    left -= own;
    return { ...target, weight: own };
  });
}

/** Names in YAML: as they are where they are plain, quoted where they could be something else. */
const plain = (text: string) => (/^[a-z][a-z0-9.-]*$/.test(text) && !/^(true|false|null|yes|no|on|off|y|n)$/.test(text) ? text : JSON.stringify(text));

const DURATION = /^\d+(\.\d+)?(ms|s|m|h)$/;

/** What is wrong with what is chosen, in words; the control plane looks at the rest. */
export function mistakes(extras: Extras): string[] {
  const out: string[] = [];
  for (const [name, text] of [["The timeout", extras.timeout], ["The time for each try", extras.perTry], ["The delay", extras.delay]] as const) {
    if (text !== "" && !DURATION.test(text)) out.push(`${name} is no duration: write 2s or 500ms.`);
  }
  for (const [name, text] of [["delayed", extras.delayPercent], ["aborted", extras.abortPercent], ["mirrored", extras.mirrorPercent]] as const) {
    const value = Number(text);
    if (text !== "" && !(value >= 0 && value <= 100)) out.push(`How many are ${name} is a percentage, from 0 to 100.`);
  }
  if (extras.abort !== "" && !/^[1-5]\d\d$/.test(extras.abort)) out.push("What is answered instead is a status, such as 503.");
  if (extras.attempts !== "" && !/^\d{1,2}$/.test(extras.attempts)) out.push("How often is tried again is a number.");
  if ((extras.header === "") !== (extras.to === "")) out.push("A header is told apart by its name, and leads to a version.");
  if (extras.header !== "" && !/^[\w-]+$/.test(extras.header)) out.push("That is no name of a header.");
  return out;
}

export function yaml(service: Service, all: Target[], extras: Extras = NOTHING): string {
  const head = (kind: string) =>
    `apiVersion: networking.istio.io/v1\nkind: ${kind}\nmetadata:\n  name: ${plain(service.name)}\n  namespace: ${plain(service.namespace)}\n`;
  const destination = (subset: string, indent: string) => `${indent}host: ${plain(service.host)}\n${indent}subset: ${plain(subset)}\n`;
  const routes = all
    .filter((it) => it.weight > 0)
    .map((it) => `    - destination:\n${destination(it.subset, "        ")}      weight: ${it.weight}\n`);
  const common = ofEach(extras, destination);
  const matched =
    extras.header === ""
      ? ""
      : `  - match:\n    - headers:\n        ${plain(extras.header.toLowerCase())}:\n          exact: ${plain(extras.value)}\n${common}    route:\n    - destination:\n${destination(extras.to, "        ")}`;
  const rest = `${common}    route:\n${routes.join("")}`.replace(/^ {4}/, "  - ");
  const route = `${head("VirtualService")}spec:\n  hosts:\n  - ${plain(service.host)}\n  http:\n${matched}${rest}`;
  if (all.every((it) => service.subsets.some((subset) => subset.name === it.subset))) return route;
  const subsets = all.map((it) => `  - name: ${plain(it.subset)}\n    labels:\n      version: ${plain(it.version)}\n`);
  return `${head("DestinationRule")}spec:\n  host: ${plain(service.host)}\n  subsets:\n${subsets.join("")}---\n${route}`;
}

/** What holds for each rule. */
function ofEach(extras: Extras, destination: (subset: string, indent: string) => string): string {
  let out = "";
  const percent = (text: string) => `        percentage:\n          value: ${text === "" ? 100 : Number(text)}\n`;
  if (extras.delay !== "" || extras.abort !== "") out += "    fault:\n";
  if (extras.delay !== "") out += `      delay:\n${percent(extras.delayPercent)}        fixedDelay: ${extras.delay}\n`;
  if (extras.abort !== "") out += `      abort:\n${percent(extras.abortPercent)}        httpStatus: ${Number(extras.abort)}\n`;
  if (extras.timeout !== "") out += `    timeout: ${extras.timeout}\n`;
  if (extras.attempts !== "") {
    out += `    retries:\n      attempts: ${Number(extras.attempts)}\n`;
    if (extras.perTry !== "") out += `      perTryTimeout: ${extras.perTry}\n`;
  }
  if (extras.mirror !== "") {
    out += `    mirror:\n${destination(extras.mirror, "      ")}    mirrorPercentage:\n      value: ${extras.mirrorPercent === "" ? 100 : Number(extras.mirrorPercent)}\n`;
  }
  return out;
}

/** Rules of others for the same host, which the wizard's would compete with. */
export function rivals(service: Service): string[] {
  const own = (rule: { namespace: string; name: string }) => rule.namespace === service.namespace && rule.name === service.name;
  return service.rules.filter((rule) => rule.kind === "VirtualService" && !own(rule)).map((rule) => `${rule.namespace}/${rule.name}`);
}
