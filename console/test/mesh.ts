/** Meshes for tests. */

import type { Inventory } from "../src/lib/api";
import type { End, Traffic, TrafficEdge } from "../src/lib/traffic";

export interface Wanted { namespace?: string; app: string; version?: string; proxy?: "none" | "sidecar" | "gateway" }

export function inventory(wanted: Wanted[]): Inventory {
  const full = wanted.map((it) => ({ namespace: "default", version: "v1", proxy: "sidecar" as const, ...it }));
  const hosts = [...new Set(full.map((it) => `${it.app}.${it.namespace}.svc.cluster.local`))];
  const object = (kind: string, namespace: string, name: string) => ({ kind, namespace, name, file: "mesh.yaml", line: 1 });
  return {
    revision: 7,
    namespaces: [...new Set(full.map((it) => it.namespace))].map((name) => ({ name, injected: true })),
    workloads: full.map(({ namespace, app, version, proxy }) => ({
      namespace,
      name: `${app}-${version}`,
      kind: "Pod",
      app,
      version,
      labels: { app, version },
      serviceAccount: app,
      identity: `spiffe://cluster.local/ns/${namespace}/sa/${app}`,
      proxy,
      pods: [{ name: `${app}-${version}-1`, address: "10.0.0.1", ready: true, node: "" }],
      services: [`${app}.${namespace}.svc.cluster.local`],
      mtls: "PERMISSIVE",
      policies: [],
    })),
    services: hosts.map((host) => {
      const [name = "", namespace = ""] = host.split(".");
      const own = full.filter((it) => it.app === name && it.namespace === namespace);
      return {
        host,
        namespace,
        name,
        object: object("Service", namespace, name),
        external: false,
        addresses: ["10.96.0.1"],
        ports: [{ number: 9080, name: "http", protocol: "HTTP" }],
        workloads: own.map((it) => `${namespace}/${it.app}-${it.version}`),
        rules: [],
        subsets: [],
        traits: [],
      };
    }),
  };
}

const end = (key: string): End => {
  const [namespace = "", name = ""] = key.split("/");
  const at = name.lastIndexOf("-");
  const app = name.slice(0, at);
  return { workload: name, namespace, app, version: name.slice(at + 1), canonicalService: app, principal: null };
};

const NOBODY: End = { workload: null, namespace: null, app: null, version: null, canonicalService: null, principal: null };

/** `default/web-v1` to `default/cart-v1`; an empty client is outside the mesh. */
export function call(from: string, to: string, change: Partial<TrafficEdge> = {}): TrafficEdge {
  const destination = end(to);
  const host = `${destination.app}.${destination.namespace}.svc.cluster.local`;
  return {
    source: from === "" ? NOBODY : end(from),
    destination,
    service: { host, name: destination.app, namespace: destination.namespace },
    protocol: "http",
    security: "mutual_tls",
    requests: 600,
    errors: 0,
    connectionsOpened: 0,
    requestsPerSecond: 10,
    errorShare: 0,
    latency: { p50: 5, p95: 20, p99: 40 },
    sentBytesPerSecond: 100,
    receivedBytesPerSecond: 900,
    responses: [{ code: "200", grpcStatus: null, flags: null, count: 600 }],
    ...change,
  };
}

export const traffic = (edges: TrafficEdge[]): Traffic => ({
  at: "2026-01-01T00:00:00Z",
  windowSeconds: 60,
  since: null,
  reporting: 3,
  dropped: 0,
  edges,
  workloads: [],
});
