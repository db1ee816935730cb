/** Live traffic, as lateend tells it (`lateen_control::traffic::view`), and what is made of it for nodes and edges. Pure. */

import type { Outcomes } from "./health";

export interface End {
  workload: string | null;
  namespace: string | null;
  app: string | null;
  version: string | null;
  canonicalService: string | null;
  principal: string | null;
}

export interface Response { code: string | null; grpcStatus: string | null; flags: string | null; count: number }

export interface Figures {
  requests: number;
  errors: number;
  connectionsOpened: number;
  requestsPerSecond: number;
  errorShare: number | null;
  latency: { p50: number; p95: number; p99: number } | null;
  sentBytesPerSecond: number;
  receivedBytesPerSecond: number;
}

export interface TrafficEdge extends Figures {
  source: End;
  destination: End;
  service: { host: string | null; name: string | null; namespace: string | null };
  protocol: string;
  security: "mutual_tls" | "none" | "mixed" | "unknown";
  responses: Response[];
}

export interface WorkloadTraffic extends Figures { workload: End; protocol: string }

export interface Traffic {
  at: string;
  windowSeconds: number;
  since: string | null;
  reporting: number;
  dropped: number;
  edges: TrafficEdge[];
  workloads: WorkloadTraffic[];
}

/** Several edges as one. */
export interface Sum {
  /** Requests a second; of TCP, connections opened. */
  rate: number;
  /** By protocol, the same. */
  protocols: Record<string, number>;
  outcomes: Outcomes;
  /** The slowest of them: quantiles cannot be added up. */
  latency: { p50: number; p95: number; p99: number } | null;
  bytes: number;
  /** The share of traffic that is known to be secured; null: nobody knows. */
  mtls: number | null;
  /** Counts of answers, by `code` or `code/flags`. */
  responses: Record<string, number>;
}

export const empty = (): Sum => ({
  rate: 0,
  protocols: {},
  outcomes: { protocol: "http", rate: 0, failed: 0, refused: 0, unanswered: 0 },
  latency: null,
  bytes: 0,
  mtls: null,
  responses: {},
});

/** Statuses of gRPC that are no failure. */
const GRPC_FINE = new Set(["0", ""]);

export function sum(edges: TrafficEdge[], seconds: number): Sum {
  const out = empty();
  let [requests, failed, refused, unanswered, known, secured] = [0, 0, 0, 0, 0, 0];
  for (const edge of edges) {
    const rate = edge.protocol === "tcp" ? edge.connectionsOpened / seconds : edge.requestsPerSecond;
    out.rate += rate;
    out.protocols[edge.protocol] = (out.protocols[edge.protocol] ?? 0) + rate;
    out.bytes += edge.sentBytesPerSecond + edge.receivedBytesPerSecond;
    const weight = Math.max(rate, 1e-9);
    if (edge.security !== "unknown") {
      known += weight;
      secured += edge.security === "mutual_tls" ? weight : edge.security === "mixed" ? weight / 2 : 0;
    }
    if (edge.latency) {
      const { p50, p95, p99 } = out.latency ?? { p50: 0, p95: 0, p99: 0 };
      const own = edge.latency;
      out.latency = { p50: Math.max(p50, own.p50), p95: Math.max(p95, own.p95), p99: Math.max(p99, own.p99) };
    }
    for (const response of edge.responses) {
      requests += response.count;
      const key = `${response.code ?? "–"}${response.flags ? ` ${response.flags}` : ""}`;
      out.responses[key] = (out.responses[key] ?? 0) + response.count;
      const code = Number(response.code ?? 0);
      if (code === 0) unanswered += response.count;
      else if (edge.protocol === "grpc" && !GRPC_FINE.has(response.grpcStatus ?? "")) failed += response.count;
      else if (code >= 500) failed += response.count;
      else if (code >= 400) refused += response.count;
    }
  }
  const share = (count: number) => (requests > 0 ? count / requests : 0);
  const protocol = Object.entries(out.protocols).sort((a, b) => b[1] - a[1])[0]?.[0] ?? "http";
  out.outcomes = { protocol, rate: out.rate, failed: share(failed), refused: share(refused), unanswered: share(unanswered) };
  out.mtls = known > 0 ? secured / known : null;
  return out;
}

/** Of a hundred requests, those that failed or were never answered. */
export const errorPercent = (sum: Sum) => 100 * (sum.outcomes.failed + sum.outcomes.unanswered);

export const isOf = (end: End, namespace: string, workload: string) =>
  end.namespace === namespace && end.workload === workload;
