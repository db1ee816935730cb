/** The policy that allows what has been seen, and nothing else. Pure. */

import type { Workload } from "./api";
import { isOf, type Traffic } from "./traffic";

export interface Proposal {
  /** Empty, where nothing can be proposed. */
  text: string;
  /** `spiffe` names of callers, without their scheme. */
  callers: string[];
  /** Calls whose callers nobody knows: they would be denied. */
  unknown: number;
}

const quoted = (text: string) => JSON.stringify(text);

/** Labels by which people tell workloads apart. */
const TELLING = ["app", "version", "app.kubernetes.io/name", "app.kubernetes.io/version", "app.kubernetes.io/instance"];

export function leastPrivilege(workload: Workload, traffic: Traffic): Proposal {
  const labels = Object.fromEntries(Object.entries(workload.labels).filter(([key]) => TELLING.includes(key)));
  const calls = traffic.edges.filter((edge) => isOf(edge.destination, workload.namespace, workload.name));
  const principals = calls.flatMap((edge) => (edge.source.principal ? [edge.source.principal.replace(/^spiffe:\/\//, "")] : []));
  const callers = [...new Set(principals)].sort();
  const unknown = calls.filter((edge) => !edge.source.principal).length;
  // A policy without callers would deny everybody, and one that selects nobody in particular would be for all.
  if (callers.length === 0 || Object.keys(labels).length === 0) return { text: "", callers, unknown };
  const selector = Object.entries(labels).map(([key, value]) => `      ${quoted(key)}: ${quoted(value)}\n`).join("");
  const text = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: ${quoted(`${workload.name}-callers`)}
  namespace: ${quoted(workload.namespace)}
spec:
  selector:
    matchLabels:
${selector}  action: ALLOW
  rules:
  - from:
    - source:
        principals:
${callers.map((caller) => `        - ${quoted(caller)}\n`).join("")}`;
  return { text, callers, unknown };
}
