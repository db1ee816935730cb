/**
 * Health of workloads and calls, by the thresholds that Kiali has by default: of HTTP, 5xx degrade nothing and fail from
 * 10 %, 4xx degrade from 10 % and fail from 20 %; of gRPC, every status but OK fails from 10 %; no response at all fails
 * from 10 %.
 */

export type Health = "failure" | "degraded" | "healthy" | "idle";

/** Shares of all requests, from 0 to 1. */
export interface Outcomes {
  protocol: string;
  /** Requests, or connections, in a second. */
  rate: number;
  /** 5xx; of gRPC, statuses other than OK. */
  failed: number;
  /** 4xx. */
  refused: number;
  /** Neither an answer nor a status. */
  unanswered: number;
}

const FAILS = 0.1;
const REFUSED_DEGRADES = 0.1;
const REFUSED_FAILS = 0.2;

export function ofRequests(outcomes: Outcomes): Health {
  if (outcomes.rate === 0) return "idle";
  if (outcomes.failed >= FAILS || outcomes.unanswered >= FAILS || outcomes.refused >= REFUSED_FAILS) return "failure";
  return outcomes.refused >= REFUSED_DEGRADES ? "degraded" : "healthy";
}

/** A workload's, by its replicas and their proxies: none available fails, some missing or behind degrades. */
export function ofReplicas(ready: number, wanted: number, unsynced: number): Health {
  if (wanted === 0) return "idle";
  if (ready === 0) return "failure";
  return ready < wanted || unsynced > 0 ? "degraded" : "healthy";
}

const ORDER: Health[] = ["failure", "degraded", "healthy", "idle"];

/** The worst of them; nothing is idle. */
export function worst(all: Health[]): Health {
  return ORDER.find((health) => all.includes(health)) ?? "idle";
}

export const WORDS: Record<Health, string> = {
  failure: "failing",
  degraded: "degraded",
  healthy: "healthy",
  idle: "no traffic",
};
